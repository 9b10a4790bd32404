"""Every name that leaves the gateway as telemetry: spans, attributes, metrics.

GenAI and MCP names follow open-telemetry/semantic-conventions-genai as of August 2026 (commit
0393513c908bf895e7b3ec480a2c1eb073c584af, schema gen-ai-dev/1.42.0-dev, all still in development); the rest
follows semantic conventions 1.44.0. A convention that moves is followed here and nowhere else. What has no
convention yet (policy verdicts: its proposal #427 is open) stands under `gateway.`.
"""

from __future__ import annotations

from typing import Final

from gateway.actions import Kind

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev"
SCOPE: Final = "gateway"

# ---------------------------------------------------------------- attributes of spans

GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_AGENT_ID: Final = "gen_ai.agent.id"
GEN_AI_AGENT_VERSION: Final = "gen_ai.agent.version"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_TOOL_NAME: Final = "gen_ai.tool.name"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
MCP_METHOD_NAME: Final = "mcp.method.name"
ERROR_TYPE: Final = "error.type"

GATEWAY_ACTION_ID: Final = "gateway.action.id"
GATEWAY_ACTION_KIND: Final = "gateway.action.kind"
GATEWAY_REQUEST_ID: Final = "gateway.request.id"
GATEWAY_TENANT: Final = "gateway.tenant"
GATEWAY_DOOR: Final = "gateway.door"
GATEWAY_STATUS: Final = "gateway.status"
GATEWAY_POLICY_VERDICT: Final = "gateway.policy.verdict"
GATEWAY_POLICY_REVISION: Final = "gateway.policy.revision"
GATEWAY_POLICY_RULES: Final = "gateway.policy.rules"
GATEWAY_COST_USD: Final = "gateway.cost.usd"
GATEWAY_COST_ESTIMATED: Final = "gateway.cost.estimated"

# ---------------------------------------------------------------- spans

ACTION: Final = "action"
DECIDE: Final = "decide"
INTENT: Final = "intent"
PERFORM: Final = "perform"
STAGES: Final = (DECIDE, INTENT, PERFORM)
"""The parts of an action that take time."""

SPAN_OF_STAGE: Final = {DECIDE: "gateway.policy.decide", INTENT: "gateway.audit.intent"}

CHAT: Final = "chat"
EXECUTE_TOOL: Final = "execute_tool"
TOOL_ERROR: Final = "tool_error"

METHOD_OF_KIND: Final = {
    Kind.TOOL_CALL: "tools/call",
    Kind.TOOL_LIST: "tools/list",
    Kind.RESOURCE_READ: "resources/read",
    Kind.PROMPT_GET: "prompts/get",
}

# ---------------------------------------------------------------- metrics

ACTIONS: Final = "gateway_actions_total"
REFUSALS: Final = "gateway_refusals_total"
UNAUTHENTICATED: Final = "gateway_unauthenticated_total"
ACTION_DURATION: Final = "gateway_action_duration_seconds"
STAGE_DURATION: Final = "gateway_stage_duration_seconds"
POLICY_DURATION: Final = "gateway_policy_evaluation_seconds"
TOKENS: Final = "gateway_tokens_total"
COST: Final = "gateway_cost_usd_total"
STREAMS_OPEN: Final = "gateway_streams_open"
AUDIT_QUEUE: Final = "gateway_audit_queue_depth"
AUDIT_COMMITS: Final = "gateway_audit_commits_total"
AUDIT_LEAVES: Final = "gateway_audit_leaves_total"
AUDIT_COMMIT_DURATION: Final = "gateway_audit_commit_seconds"
AUDIT_UNSIGNED: Final = "gateway_audit_unsigned_leaves"
AUDIT_LATCHED: Final = "gateway_audit_latched"
APPROVALS_PENDING: Final = "gateway_approvals_pending"
APPROVALS_UNKNOWN: Final = "gateway_approvals_unknown"
APPROVALS_WAITING: Final = "gateway_approvals_waiting_callers"
APPROVALS_DECISION: Final = "gateway_approvals_decision_seconds"
LOG_LINES_DROPPED: Final = "gateway_log_lines_dropped_total"
BUILD_INFO: Final = "gateway_build_info"
