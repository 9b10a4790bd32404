BEGIN TRANSACTION;
CREATE TABLE agent (
	id VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	env VARCHAR NOT NULL, 
	version VARCHAR NOT NULL, 
	team VARCHAR NOT NULL, 
	use_case VARCHAR NOT NULL, 
	tier VARCHAR NOT NULL, 
	status VARCHAR NOT NULL, 
	owners VARCHAR NOT NULL, 
	next_review VARCHAR, 
	labels VARCHAR NOT NULL, 
	source VARCHAR NOT NULL, 
	created_ns INTEGER NOT NULL, mac BLOB, change_no INTEGER DEFAULT '0' NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE agent_key (
	id VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	agent_id VARCHAR NOT NULL, 
	key_sha256 VARCHAR NOT NULL, 
	user VARCHAR, 
	created_ns INTEGER NOT NULL, 
	expires_ns INTEGER, 
	revoked_ns INTEGER, mac BLOB, 
	PRIMARY KEY (id), 
	UNIQUE (key_sha256)
);
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0008');
CREATE TABLE approval_case (
	id VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	action_id VARCHAR NOT NULL, 
	digest VARCHAR NOT NULL, 
	parent VARCHAR, 
	idempotency VARCHAR, 
	agent VARCHAR NOT NULL, 
	user VARCHAR, 
	server VARCHAR NOT NULL, 
	tool VARCHAR NOT NULL, 
	risk VARCHAR NOT NULL, 
	effect VARCHAR NOT NULL, 
	rules VARCHAR NOT NULL, 
	definition_digest VARCHAR, 
	state VARCHAR NOT NULL, 
	open INTEGER NOT NULL, 
	version INTEGER NOT NULL, 
	fence INTEGER NOT NULL, 
	requirement VARCHAR NOT NULL, 
	presented_digest VARCHAR NOT NULL, 
	asked BLOB NOT NULL, 
	opened_ns INTEGER NOT NULL, 
	expires_ns INTEGER NOT NULL, 
	decided_ns INTEGER, 
	ended_ns INTEGER, 
	told_until_ns INTEGER, 
	code VARCHAR, 
	why VARCHAR NOT NULL, 
	released_to VARCHAR, 
	ending BLOB, written INTEGER, mac BLOB, votes INTEGER DEFAULT '0' NOT NULL, findings VARCHAR, 
	PRIMARY KEY (id)
);
CREATE TABLE case_attempt (
	case_id VARCHAR NOT NULL, 
	fence INTEGER NOT NULL, 
	started_ns INTEGER NOT NULL, 
	ended_ns INTEGER, 
	outcome VARCHAR, 
	note VARCHAR, replica VARCHAR DEFAULT '' NOT NULL, mac BLOB, 
	PRIMARY KEY (case_id, fence)
)
 WITHOUT ROWID

;
CREATE TABLE case_comment (
	id VARCHAR NOT NULL, 
	case_id VARCHAR NOT NULL, 
	person VARCHAR NOT NULL, 
	text VARCHAR NOT NULL, 
	ts_ns INTEGER NOT NULL, mac BLOB, 
	PRIMARY KEY (id)
);
CREATE TABLE case_key (
	idempotency VARCHAR NOT NULL, 
	case_id VARCHAR NOT NULL, mac BLOB, 
	PRIMARY KEY (idempotency)
)
 WITHOUT ROWID

;
CREATE TABLE case_vote (
	id VARCHAR NOT NULL, 
	case_id VARCHAR NOT NULL, 
	person VARCHAR NOT NULL, 
	choice VARCHAR NOT NULL, 
	presented_digest VARCHAR NOT NULL, 
	reason VARCHAR NOT NULL, 
	guidance VARCHAR NOT NULL, 
	ts_ns INTEGER NOT NULL, mac BLOB, makers VARCHAR, 
	PRIMARY KEY (id), 
	UNIQUE (case_id, person, presented_digest)
);
CREATE TABLE changed (
	topic VARCHAR NOT NULL, 
	version INTEGER NOT NULL, 
	PRIMARY KEY (topic)
);
CREATE TABLE checkpoint (
	size INTEGER NOT NULL, 
	root BLOB NOT NULL, 
	note BLOB NOT NULL, 
	ts_ns INTEGER NOT NULL, frontier BLOB, 
	PRIMARY KEY (size)
);
CREATE TABLE console_session (
	token_sha256 VARCHAR NOT NULL, 
	person_id VARCHAR NOT NULL, 
	created_ns INTEGER NOT NULL, 
	expires_ns INTEGER NOT NULL, 
	revoked_ns INTEGER, mac BLOB, makers VARCHAR, parent VARCHAR, 
	PRIMARY KEY (token_sha256)
);
CREATE TABLE ingest (
	seq INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	body BLOB NOT NULL, mac BLOB DEFAULT '' NOT NULL, 
	PRIMARY KEY (seq), 
	UNIQUE (id)
);
CREATE TABLE kept_answer (
	request VARCHAR NOT NULL, 
	digest VARCHAR NOT NULL, 
	answer_id VARCHAR NOT NULL, 
	sealed BLOB NOT NULL, 
	stream INTEGER NOT NULL, 
	until_ns INTEGER NOT NULL, 
	PRIMARY KEY (request)
)
 WITHOUT ROWID

;
CREATE TABLE leaf (
	idx INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	body BLOB NOT NULL, 
	hash BLOB NOT NULL, 
	PRIMARY KEY (idx), 
	UNIQUE (id)
);
CREATE TABLE log_head (
	tenant VARCHAR NOT NULL, 
	writer VARCHAR NOT NULL, 
	size INTEGER NOT NULL, 
	frontier BLOB NOT NULL, 
	PRIMARY KEY (tenant)
);
CREATE TABLE open_intent (
	action_id VARCHAR NOT NULL, 
	leaf_id VARCHAR NOT NULL, 
	reservation BLOB, replica VARCHAR DEFAULT '' NOT NULL, digest VARCHAR, 
	PRIMARY KEY (action_id)
)
 WITHOUT ROWID

;
CREATE TABLE payload (
	seq INTEGER NOT NULL, 
	leaf_id VARCHAR NOT NULL, 
	sealed BLOB NOT NULL, 
	PRIMARY KEY (seq), 
	UNIQUE (leaf_id)
);
CREATE TABLE payload_key (
	leaf_id VARCHAR NOT NULL, 
	kek VARCHAR NOT NULL, 
	wrapped BLOB NOT NULL, 
	PRIMARY KEY (leaf_id)
)
 WITHOUT ROWID

;
CREATE TABLE person (
	id VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	roles VARCHAR NOT NULL, 
	created_ns INTEGER NOT NULL, 
	removed_ns INTEGER, groups VARCHAR DEFAULT '[]' NOT NULL, mac BLOB, change_no INTEGER DEFAULT '0' NOT NULL, given VARCHAR, 
	PRIMARY KEY (id)
);
CREATE TABLE record_view (
	idx INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	ts VARCHAR NOT NULL, 
	type VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	agent VARCHAR, 
	user VARCHAR, 
	session VARCHAR, 
	action VARCHAR, 
	parent VARCHAR, 
	kind VARCHAR, 
	server VARCHAR, 
	tool VARCHAR, 
	model VARCHAR, 
	effect VARCHAR, 
	status VARCHAR, 
	code VARCHAR, 
	rules VARCHAR, case_id VARCHAR, 
	PRIMARY KEY (idx)
);
CREATE TABLE recorded (
	tenant VARCHAR NOT NULL, 
	size INTEGER NOT NULL, 
	state BLOB NOT NULL, 
	mac BLOB, 
	PRIMARY KEY (tenant)
);
CREATE TABLE replica (
	id VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	url VARCHAR NOT NULL, 
	version VARCHAR NOT NULL, 
	started_ns INTEGER NOT NULL, 
	beat_ns INTEGER NOT NULL, 
	seq INTEGER NOT NULL, 
	ended_ns INTEGER, 
	released INTEGER NOT NULL, 
	told VARCHAR NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE seen_tool (
	agent VARCHAR NOT NULL, 
	tool VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	description VARCHAR NOT NULL, 
	parameters VARCHAR NOT NULL, 
	first_ns INTEGER NOT NULL, 
	last_ns INTEGER NOT NULL, 
	count INTEGER NOT NULL, 
	PRIMARY KEY (agent, tool)
);
CREATE TABLE shared_key (
	name VARCHAR NOT NULL, 
	fingerprint VARCHAR NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE sign_in (
	token_sha256 VARCHAR NOT NULL, 
	person_id VARCHAR NOT NULL, 
	expires_ns INTEGER NOT NULL, 
	used_ns INTEGER, mac BLOB, makers VARCHAR, parent VARCHAR, 
	PRIMARY KEY (token_sha256)
);
CREATE TABLE spend (
	tenant VARCHAR NOT NULL, 
	level VARCHAR NOT NULL, 
	window VARCHAR NOT NULL, 
	replica VARCHAR NOT NULL, 
	nanousd INTEGER NOT NULL, 
	tokens INTEGER NOT NULL, mac BLOB, 
	PRIMARY KEY (tenant, level, window, replica)
)
 WITHOUT ROWID

;
CREATE TABLE unsealed (
	name VARCHAR NOT NULL, 
	PRIMARY KEY (name)
);
CREATE INDEX ix_agent_key_agent_id ON agent_key (agent_id);
CREATE INDEX record_view_agent ON record_view (agent, idx);
CREATE INDEX record_view_session ON record_view (session, idx);
CREATE INDEX record_view_action ON record_view (action);
CREATE INDEX record_view_parent ON record_view (parent);
CREATE INDEX record_view_ts ON record_view (ts);
CREATE UNIQUE INDEX approval_case_open ON approval_case (digest) WHERE open = 1;
CREATE INDEX approval_case_digest ON approval_case (digest, opened_ns);
CREATE INDEX approval_case_key ON approval_case (idempotency);
CREATE INDEX approval_case_state ON approval_case (state, expires_ns);
CREATE INDEX approval_case_agent ON approval_case (agent, id);
CREATE INDEX approval_case_parent ON approval_case (parent);
CREATE INDEX approval_case_waiting ON approval_case (agent) WHERE state = 'pending';
CREATE INDEX approval_case_ending ON approval_case (told_until_ns) WHERE ending IS NOT NULL AND open = 0;
CREATE INDEX case_key_case ON case_key (case_id);
CREATE INDEX case_comment_case ON case_comment (case_id);
CREATE INDEX kept_answer_id ON kept_answer (answer_id);
CREATE INDEX kept_answer_until ON kept_answer (until_ns);
CREATE INDEX record_view_case ON record_view (case_id);
CREATE UNIQUE INDEX open_intent_digest ON open_intent (digest) WHERE digest IS NOT NULL;
CREATE INDEX open_intent_replica ON open_intent (replica);
CREATE INDEX approval_case_written ON approval_case (written);
CREATE INDEX record_view_refused ON record_view (ts, tenant, agent, code) WHERE type = 'action.refused';
COMMIT;
