"""Every name that leaves the gateway as telemetry: spans, attributes, metrics.

GenAI and MCP names follow open-telemetry/semantic-conventions-genai as of August 2026 (commit
0393513c908bf895e7b3ec480a2c1eb073c584af, schema gen-ai-dev/1.42.0-dev, all still in development); the rest
follows semantic conventions 1.44.0. A convention that moves is followed here and nowhere else. What has no
convention yet (policy verdicts: its proposal #427 is open) stands under `gateway.`.
"""

from __future__ import annotations

from typing import Final

from gateway.actions import Effect, Kind

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev"
SCOPE: Final = "gateway"

# ---------------------------------------------------------------- attributes of the resource

SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
SERVICE_INSTANCE_ID: Final = "service.instance.id"
DEPLOYMENT_ENVIRONMENT: Final = "deployment.environment.name"

# ---------------------------------------------------------------- attributes of spans

GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_STREAM: Final = "gen_ai.request.stream"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
GEN_AI_AGENT_ID: Final = "gen_ai.agent.id"
GEN_AI_AGENT_VERSION: Final = "gen_ai.agent.version"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_TOOL_NAME: Final = "gen_ai.tool.name"
GEN_AI_TOOL_TYPE: Final = "gen_ai.tool.type"
GEN_AI_TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - the name of an attribute
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
MCP_METHOD_NAME: Final = "mcp.method.name"
MCP_PROTOCOL_VERSION: Final = "mcp.protocol.version"
JSONRPC_REQUEST_ID: Final = "jsonrpc.request.id"
RPC_STATUS_CODE: Final = "rpc.response.status_code"
ERROR_TYPE: Final = "error.type"

GATEWAY_ACTION_ID: Final = "gateway.action.id"
GATEWAY_ACTION_KIND: Final = "gateway.action.kind"
GATEWAY_REQUEST_ID: Final = "gateway.request.id"
GATEWAY_TENANT: Final = "gateway.tenant"
GATEWAY_DOOR: Final = "gateway.door"
GATEWAY_STATUS: Final = "gateway.status"
GATEWAY_TOOL_SERVER: Final = "gateway.tool.server"
GATEWAY_MODEL_ALIAS: Final = "gateway.model.alias"
GATEWAY_POLICY_VERDICT: Final = "gateway.policy.verdict"
GATEWAY_POLICY_ACTION: Final = "gateway.policy.action"
GATEWAY_POLICY_REVISION: Final = "gateway.policy.revision"
GATEWAY_POLICY_RULES: Final = "gateway.policy.rules"
GATEWAY_CASE_ID: Final = "gateway.case.id"
GATEWAY_CASE_STATE: Final = "gateway.case.state"
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
WAIT_SPAN: Final = "gateway.approval.wait"
OTHER_SPAN: Final = "gateway."  # before what has no convention: the kind of an action, a stage

CHAT: Final = "chat"
EXECUTE_TOOL: Final = "execute_tool"
TOOL_TYPE: Final = "extension"  # it runs on this side, not at the agent
TOOL_ERROR: Final = "tool_error"
OTHER_ERROR: Final = "_OTHER"
INPUT: Final = "input"
OUTPUT: Final = "output"

POLICY_ACTION: Final = {Effect.ALLOW: "allow", Effect.DENY: "block", Effect.ESCALATE: "escalate"}
"""What the gateway does about a verdict; the proposal keeps the two apart."""

METHOD_OF_KIND: Final = {
    Kind.TOOL_CALL: "tools/call",
    Kind.TOOL_LIST: "tools/list",
    Kind.RESOURCE_READ: "resources/read",
    Kind.PROMPT_GET: "prompts/get",
}

RPC_STATUS_OF_CODE: Final = {"unknown_tool": "-32602"}
"""Refusals of a governed call that MCP answers with a JSON-RPC error of its own number; others are results."""

# ---------------------------------------------------------------- metrics, by their names in Prometheus

ACTIONS: Final = "gateway_actions_total"
REFUSALS: Final = "gateway_refusals_total"
SOFT_BUDGETS: Final = "gateway_soft_budgets_passed_total"
RESERVATIONS_EXCEEDED: Final = "gateway_reservations_exceeded_total"
UNAUTHENTICATED: Final = "gateway_unauthenticated_total"
ACTION_DURATION: Final = "gateway_action_duration_seconds"
STAGE_DURATION: Final = "gateway_stage_duration_seconds"
POLICY_DURATION: Final = "gateway_policy_evaluation_seconds"
TOKENS: Final = "gateway_tokens_total"
COST: Final = "gateway_cost_usd_total"
COST_ESTIMATED: Final = "gateway_cost_estimated_usd_total"
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
EXPORT_ITEMS: Final = "gateway_telemetry_exported_total"
EXPORT_LOST: Final = "gateway_telemetry_lost_total"
BUILD_INFO: Final = "gateway_build_info"

# The conventions' own, with the name that OpenTelemetry's default translation gives them.
MODEL_DURATION: Final = "gen_ai_client_operation_duration_seconds"
MODEL_TOKENS: Final = "gen_ai_client_token_usage"
MODEL_FIRST_CHUNK: Final = "gen_ai_client_operation_time_to_first_chunk_seconds"
MODEL_NEXT_CHUNK: Final = "gen_ai_client_operation_time_per_output_chunk_seconds"
TOOL_DURATION: Final = "gen_ai_execute_tool_duration_seconds"
MCP_SERVER_DURATION: Final = "mcp_server_operation_duration_seconds"
MCP_CLIENT_DURATION: Final = "mcp_client_operation_duration_seconds"

OTLP_NAME: Final = {
    MODEL_DURATION: "gen_ai.client.operation.duration",
    MODEL_TOKENS: "gen_ai.client.token.usage",
    MODEL_FIRST_CHUNK: "gen_ai.client.operation.time_to_first_chunk",
    MODEL_NEXT_CHUNK: "gen_ai.client.operation.time_per_output_chunk",
    TOOL_DURATION: "gen_ai.execute_tool.duration",
    MCP_SERVER_DURATION: "mcp.server.operation.duration",
    MCP_CLIENT_DURATION: "mcp.client.operation.duration",
}

MODEL_ATTRIBUTES: Final = (GEN_AI_OPERATION_NAME, GEN_AI_PROVIDER_NAME, GEN_AI_REQUEST_MODEL)
CALL_ATTRIBUTES: Final = (MCP_METHOD_NAME, GEN_AI_TOOL_NAME, GATEWAY_TOOL_SERVER, ERROR_TYPE)
TOOL_ATTRIBUTES: Final = (GEN_AI_TOOL_NAME, GATEWAY_TOOL_SERVER, ERROR_TYPE)
SERVED_ATTRIBUTES: Final = (MCP_METHOD_NAME, GEN_AI_TOOL_NAME, ERROR_TYPE)

SIGNALS: Final = ("traces", "metrics", "logs")
EXPORT_FAILED: Final = "failed"
EXPORT_QUEUE_FULL: Final = "queue_full"


def label_of(attribute: str) -> str:
    """An attribute's name as a Prometheus label, as the default translation makes it."""
    return attribute.replace(".", "_")


def otlp_name(metric: str) -> str:
    """A metric's name in OTLP: that of its convention; for ours, one whose translation is the Prometheus name."""
    given = OTLP_NAME.get(metric)
    if given is not None:
        return given
    return metric.removesuffix("_total").removesuffix("_seconds").replace("_", ".", 1)
