-- The platform's tables, as far as agents and hub use them.
--
-- JSON documents and arrays are text, times are microseconds since 1970 in UTC, truth is 0 or 1. Everything is STRICT: a
-- value of another type is refused when it is written. The store writes `created` and `updated` itself; the defaults are
-- for rows that people insert by hand.

CREATE TABLE identity (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    login         TEXT NOT NULL UNIQUE,
    display_name  TEXT,
    password_hash TEXT,
    attributes    TEXT NOT NULL DEFAULT '{}',
    frozen        INTEGER NOT NULL DEFAULT 0 CHECK (frozen IN (0, 1)),
    created       INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    updated       INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) STRICT;

-- Identity 1 is the default executor and the subject of worker tokens.
INSERT INTO identity (id, login, display_name) VALUES (1, 'system', 'System');

CREATE TABLE pack (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    ref               TEXT NOT NULL UNIQUE,
    label             TEXT NOT NULL,
    description       TEXT,
    version           TEXT NOT NULL,
    conf_schema       TEXT NOT NULL DEFAULT '{}',
    config            TEXT NOT NULL DEFAULT '{}',
    meta              TEXT NOT NULL DEFAULT '{}',
    tags              TEXT NOT NULL DEFAULT '[]',
    runtime_deps      TEXT NOT NULL DEFAULT '[]',
    dependencies      TEXT NOT NULL DEFAULT '[]',
    is_standard       INTEGER NOT NULL DEFAULT 0 CHECK (is_standard IN (0, 1)),
    installers        TEXT DEFAULT '[]',
    source_type       TEXT,
    source_url        TEXT,
    source_ref        TEXT,
    checksum          TEXT,
    checksum_verified INTEGER DEFAULT 0 CHECK (checksum_verified IN (0, 1)),
    installed_at      INTEGER,
    installed_by      INTEGER REFERENCES identity (id) ON DELETE SET NULL,
    installation_method TEXT,
    storage_path      TEXT,
    created           INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    updated           INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) STRICT;

CREATE TABLE runtime (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    ref              TEXT NOT NULL UNIQUE,
    pack             INTEGER REFERENCES pack (id) ON DELETE CASCADE,
    pack_ref         TEXT,
    description      TEXT,
    name             TEXT NOT NULL,
    aliases          TEXT NOT NULL DEFAULT '[]',
    distributions    TEXT NOT NULL,
    installation     TEXT,
    installers       TEXT DEFAULT '[]',
    execution_config TEXT NOT NULL DEFAULT '{}',
    auto_detected    INTEGER NOT NULL DEFAULT 0 CHECK (auto_detected IN (0, 1)),
    detection_config TEXT NOT NULL DEFAULT '{}',
    created          INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    updated          INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) STRICT;
CREATE INDEX runtime_pack ON runtime (pack);

CREATE TABLE runtime_version (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    runtime          INTEGER NOT NULL REFERENCES runtime (id) ON DELETE CASCADE,
    runtime_ref      TEXT NOT NULL,
    version          TEXT NOT NULL,
    version_major    INTEGER,
    version_minor    INTEGER,
    version_patch    INTEGER,
    execution_config TEXT NOT NULL DEFAULT '{}',
    distributions    TEXT NOT NULL DEFAULT '{}',
    is_default       INTEGER NOT NULL DEFAULT 0 CHECK (is_default IN (0, 1)),
    available        INTEGER NOT NULL DEFAULT 1 CHECK (available IN (0, 1)),
    verified_at      INTEGER,
    meta             TEXT NOT NULL DEFAULT '{}',
    created          INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    updated          INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    UNIQUE (runtime, version)
) STRICT;

CREATE TABLE worker (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    name           TEXT NOT NULL UNIQUE,
    worker_type    TEXT NOT NULL CHECK (worker_type IN ('local', 'remote', 'container')),
    worker_role    TEXT NOT NULL CHECK (worker_role IN ('action', 'sensor')),
    runtime        INTEGER REFERENCES runtime (id) ON DELETE SET NULL,
    host           TEXT,
    port           INTEGER,
    status         TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'inactive', 'busy', 'error')),
    capabilities   TEXT,
    meta           TEXT,
    last_heartbeat INTEGER,
    cordoned       INTEGER NOT NULL DEFAULT 0 CHECK (cordoned IN (0, 1)),
    cordon_reason  TEXT,
    cordoned_by    INTEGER REFERENCES identity (id) ON DELETE SET NULL,
    cordoned_at    INTEGER,
    created        INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    updated        INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) STRICT;

CREATE TABLE sensor (
    id                         INTEGER PRIMARY KEY AUTOINCREMENT,
    ref                        TEXT NOT NULL UNIQUE,
    pack                       INTEGER REFERENCES pack (id) ON DELETE CASCADE,
    pack_ref                   TEXT,
    label                      TEXT NOT NULL,
    description                TEXT,
    entrypoint                 TEXT NOT NULL,
    runtime                    INTEGER NOT NULL REFERENCES runtime (id) ON DELETE CASCADE,
    runtime_ref                TEXT NOT NULL,
    enabled                    INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    is_adhoc                   INTEGER NOT NULL DEFAULT 0 CHECK (is_adhoc IN (0, 1)),
    param_schema               TEXT,
    config                     TEXT,
    runtime_version_constraint TEXT,
    worker_selector            TEXT NOT NULL DEFAULT '{}',
    worker_tolerations         TEXT NOT NULL DEFAULT '[]',
    worker_affinity            TEXT NOT NULL DEFAULT '{}',
    log_retention_policy       TEXT CHECK (log_retention_policy IN ('versions', 'days', 'hours', 'minutes')),
    log_retention_limit        INTEGER CHECK (log_retention_limit > 0),
    artifact_retention_policy  TEXT CHECK (artifact_retention_policy IN ('versions', 'days', 'hours', 'minutes')),
    artifact_retention_limit   INTEGER CHECK (artifact_retention_limit > 0),
    created                    INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    updated                    INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) STRICT;
CREATE INDEX sensor_pack ON sensor (pack);

CREATE TABLE sensor_process (
    id                         INTEGER PRIMARY KEY AUTOINCREMENT,
    sensor                     INTEGER NOT NULL REFERENCES sensor (id) ON DELETE CASCADE,
    sensor_ref                 TEXT NOT NULL,
    worker                     INTEGER NOT NULL REFERENCES worker (id) ON DELETE CASCADE,
    worker_name                TEXT NOT NULL,
    status                     TEXT NOT NULL DEFAULT 'starting'
                               CHECK (status IN ('starting', 'running', 'stopped', 'failed', 'backoff')),
    pid                        INTEGER CHECK (pid > 0),
    consecutive_failures       INTEGER NOT NULL DEFAULT 0 CHECK (consecutive_failures >= 0),
    last_exit_code             INTEGER,
    last_signal                INTEGER,
    last_started_at            INTEGER,
    last_stopped_at            INTEGER,
    next_restart_at            INTEGER,
    stderr_excerpt             TEXT,
    log_artifact_ref           TEXT,
    active_rule_count          INTEGER NOT NULL DEFAULT 0 CHECK (active_rule_count >= 0),
    last_alerted_failure_count INTEGER NOT NULL DEFAULT 0 CHECK (last_alerted_failure_count >= 0),
    last_alerted_at            INTEGER,
    meta                       TEXT NOT NULL DEFAULT '{}',
    created                    INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    updated                    INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    UNIQUE (sensor, worker),
    UNIQUE (sensor_ref, worker_name)
) STRICT;
CREATE INDEX sensor_process_worker ON sensor_process (worker);

CREATE TABLE "trigger" (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    ref             TEXT NOT NULL UNIQUE,
    pack            INTEGER REFERENCES pack (id) ON DELETE CASCADE,
    pack_ref        TEXT,
    label           TEXT NOT NULL,
    description     TEXT,
    enabled         INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
    is_adhoc        INTEGER NOT NULL DEFAULT 0 CHECK (is_adhoc IN (0, 1)),
    param_schema    TEXT,
    out_schema      TEXT,
    webhook_enabled INTEGER NOT NULL DEFAULT 0 CHECK (webhook_enabled IN (0, 1)),
    webhook_key     TEXT UNIQUE,
    webhook_config  TEXT DEFAULT '{}',
    sensor          INTEGER REFERENCES sensor (id) ON DELETE SET NULL,
    sensor_ref      TEXT,
    created         INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    updated         INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) STRICT;
CREATE INDEX trigger_pack ON "trigger" (pack);
CREATE INDEX trigger_sensor ON "trigger" (sensor);

CREATE TABLE action (
    id                                    INTEGER PRIMARY KEY AUTOINCREMENT,
    ref                                   TEXT NOT NULL UNIQUE,
    pack                                  INTEGER NOT NULL REFERENCES pack (id) ON DELETE CASCADE,
    pack_ref                              TEXT NOT NULL,
    label                                 TEXT NOT NULL,
    description                           TEXT,
    entrypoint                            TEXT NOT NULL,
    runtime                               INTEGER REFERENCES runtime (id),
    param_schema                          TEXT,
    out_schema                            TEXT,
    parameter_delivery                    TEXT NOT NULL DEFAULT 'stdin' CHECK (parameter_delivery IN ('stdin', 'file')),
    parameter_format                      TEXT NOT NULL DEFAULT 'json'
                                          CHECK (parameter_format IN ('dotenv', 'json', 'yaml')),
    output_format                         TEXT NOT NULL DEFAULT 'text'
                                          CHECK (output_format IN ('text', 'json', 'yaml', 'jsonl')),
    is_adhoc                              INTEGER NOT NULL DEFAULT 0 CHECK (is_adhoc IN (0, 1)),
    timeout_seconds                       INTEGER,
    max_retries                           INTEGER DEFAULT 0,
    runtime_version_constraint            TEXT,
    accesses_mcp                          INTEGER NOT NULL DEFAULT 0 CHECK (accesses_mcp IN (0, 1)),
    default_execution_permission_set_refs TEXT NOT NULL DEFAULT '[]',
    log_retention_policy                  TEXT CHECK (log_retention_policy IN ('versions', 'days', 'hours', 'minutes')),
    log_retention_limit                   INTEGER CHECK (log_retention_limit > 0),
    artifact_retention_policy             TEXT
                                          CHECK (artifact_retention_policy IN ('versions', 'days', 'hours', 'minutes')),
    artifact_retention_limit              INTEGER CHECK (artifact_retention_limit > 0),
    required_worker_runtimes              TEXT NOT NULL DEFAULT '{}',
    worker_selector                       TEXT NOT NULL DEFAULT '{}',
    worker_tolerations                    TEXT NOT NULL DEFAULT '[]',
    worker_affinity                       TEXT NOT NULL DEFAULT '{}',
    created                               INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    updated                               INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) STRICT;
CREATE INDEX action_pack ON action (pack);
CREATE INDEX action_runtime ON action (runtime);

CREATE TABLE rule (
    id                  INTEGER PRIMARY KEY AUTOINCREMENT,
    ref                 TEXT NOT NULL UNIQUE,
    pack                INTEGER NOT NULL REFERENCES pack (id) ON DELETE CASCADE,
    pack_ref            TEXT NOT NULL,
    label               TEXT NOT NULL,
    description         TEXT,
    action              INTEGER REFERENCES action (id) ON DELETE SET NULL,
    action_ref          TEXT NOT NULL,
    "trigger"           INTEGER REFERENCES "trigger" (id) ON DELETE SET NULL,
    trigger_ref         TEXT NOT NULL,
    conditions          TEXT NOT NULL DEFAULT '[]',
    action_params       TEXT DEFAULT '{}',
    trigger_params      TEXT DEFAULT '{}',
    permission_set_refs TEXT,
    enabled             INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    is_adhoc            INTEGER NOT NULL DEFAULT 0 CHECK (is_adhoc IN (0, 1)),
    owner_identity      INTEGER REFERENCES identity (id) ON DELETE SET NULL,
    created             INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    updated             INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) STRICT;
CREATE INDEX rule_pack ON rule (pack);
CREATE INDEX rule_action ON rule (action);
CREATE INDEX rule_trigger ON rule ("trigger");
CREATE INDEX rule_trigger_ref ON rule (trigger_ref);

CREATE TABLE event (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    "trigger"   INTEGER REFERENCES "trigger" (id) ON DELETE SET NULL,
    trigger_ref TEXT NOT NULL,
    config      TEXT,
    payload     TEXT,
    source      INTEGER REFERENCES sensor (id) ON DELETE SET NULL,
    source_ref  TEXT,
    rule        INTEGER REFERENCES rule (id) ON DELETE SET NULL,
    rule_ref    TEXT,
    created     INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) STRICT;
CREATE INDEX event_trigger ON event ("trigger");
CREATE INDEX event_source ON event (source) WHERE source IS NOT NULL;
CREATE INDEX event_rule ON event (rule) WHERE rule IS NOT NULL;

CREATE TABLE enforcement (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    rule        INTEGER REFERENCES rule (id) ON DELETE SET NULL,
    rule_ref    TEXT NOT NULL,
    trigger_ref TEXT NOT NULL,
    config      TEXT,
    event       INTEGER,
    status      TEXT NOT NULL DEFAULT 'created' CHECK (status IN ('created', 'processed', 'disabled')),
    payload     TEXT NOT NULL,
    condition   TEXT NOT NULL DEFAULT 'all' CHECK (condition IN ('any', 'all')),
    conditions  TEXT NOT NULL DEFAULT '[]',
    created     INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    resolved_at INTEGER,
    UNIQUE (rule, event)
) STRICT;
CREATE INDEX enforcement_event ON enforcement (event);

CREATE TABLE execution (
    id                        INTEGER PRIMARY KEY AUTOINCREMENT,
    action                    INTEGER REFERENCES action (id) ON DELETE SET NULL,
    action_ref                TEXT NOT NULL,
    config                    TEXT,
    env_vars                  TEXT,
    parent                    INTEGER REFERENCES execution (id) ON DELETE SET NULL,
    enforcement               INTEGER REFERENCES enforcement (id) ON DELETE SET NULL,
    executor                  INTEGER REFERENCES identity (id) ON DELETE SET NULL,
    permission_set_refs       TEXT NOT NULL DEFAULT '[]',
    artifact_retention_policy TEXT CHECK (artifact_retention_policy IN ('versions', 'days', 'hours', 'minutes')),
    artifact_retention_limit  INTEGER CHECK (artifact_retention_limit > 0),
    worker_selector           TEXT,
    worker_tolerations        TEXT,
    worker_affinity           TEXT,
    worker                    INTEGER REFERENCES worker (id) ON DELETE SET NULL,
    status                    TEXT NOT NULL DEFAULT 'requested'
                              CHECK (status IN ('requested', 'scheduling', 'scheduled', 'running', 'completed', 'failed',
                                                'canceling', 'cancelled', 'timeout', 'abandoned')),
    result                    TEXT,
    -- The fence of the worker's writes, so a running row cannot be without.
    started_at                INTEGER CHECK (status <> 'running' OR started_at IS NOT NULL),
    workflow_task             TEXT,
    retry_count               INTEGER NOT NULL DEFAULT 0,
    max_retries               INTEGER,
    retry_reason              TEXT,
    original_execution        INTEGER REFERENCES execution (id) ON DELETE SET NULL,
    created                   INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    updated                   INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) STRICT;
-- At most one execution per enforcement, apart from retries and children.
CREATE UNIQUE INDEX execution_enforcement ON execution (enforcement)
    WHERE enforcement IS NOT NULL AND parent IS NULL AND json_type(config, '$.retry_of') IS NULL;
-- What is not over yet is little and asked for often.
CREATE INDEX execution_open ON execution (status, worker)
    WHERE status IN ('requested', 'scheduling', 'scheduled', 'running', 'canceling');
CREATE INDEX execution_action ON execution (action);
CREATE INDEX execution_action_ref ON execution (action_ref);
CREATE INDEX execution_parent ON execution (parent) WHERE parent IS NOT NULL;
CREATE INDEX execution_original ON execution (original_execution) WHERE original_execution IS NOT NULL;

-- The allowed transitions, as the model has them. A test compares the two exhaustively.
CREATE TRIGGER execution_transition BEFORE UPDATE OF status ON execution
WHEN OLD.status <> NEW.status AND NOT CASE OLD.status
    WHEN 'requested'  THEN NEW.status IN ('scheduling', 'failed', 'cancelled', 'abandoned')
    WHEN 'scheduling' THEN NEW.status IN ('requested', 'scheduled', 'failed', 'cancelled', 'abandoned')
    WHEN 'scheduled'  THEN NEW.status IN ('running', 'failed', 'cancelled', 'canceling', 'abandoned')
    WHEN 'running'    THEN NEW.status IN ('canceling', 'completed', 'failed', 'cancelled', 'timeout', 'abandoned')
    WHEN 'canceling'  THEN NEW.status IN ('completed', 'failed', 'cancelled', 'abandoned')
    ELSE 0
END
BEGIN
    SELECT RAISE(ABORT, 'this transition of execution.status is not allowed');
END;

CREATE TABLE execution_secret_value (
    id                  INTEGER PRIMARY KEY AUTOINCREMENT,
    entity_type         TEXT NOT NULL,
    entity_id           INTEGER NOT NULL,
    json_path           TEXT NOT NULL,
    source_kind         TEXT NOT NULL,
    source_ref          TEXT,
    encrypted_value     TEXT NOT NULL,
    encryption_key_hash TEXT,
    created             INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    UNIQUE (entity_type, entity_id, json_path)
) STRICT;

CREATE TABLE key (
    id                  INTEGER PRIMARY KEY AUTOINCREMENT,
    ref                 TEXT NOT NULL UNIQUE,
    owner_type          TEXT NOT NULL CHECK (owner_type IN ('system', 'identity', 'pack', 'action', 'sensor')),
    -- The platform computes it on every write, so here it is generated.
    owner               TEXT GENERATED ALWAYS AS (CASE owner_type
                            WHEN 'system' THEN 'system'
                            WHEN 'identity' THEN CAST(owner_identity AS TEXT)
                            WHEN 'pack' THEN CAST(owner_pack AS TEXT)
                            WHEN 'action' THEN CAST(owner_action AS TEXT)
                            ELSE CAST(owner_sensor AS TEXT)
                        END) STORED,
    owner_identity      INTEGER REFERENCES identity (id),
    owner_pack          INTEGER REFERENCES pack (id),
    owner_pack_ref      TEXT,
    owner_action        INTEGER REFERENCES action (id) ON DELETE CASCADE,
    owner_action_ref    TEXT,
    owner_sensor        INTEGER REFERENCES sensor (id) ON DELETE CASCADE,
    owner_sensor_ref    TEXT,
    name                TEXT NOT NULL,
    encrypted           INTEGER NOT NULL CHECK (encrypted IN (0, 1)),
    encryption_key_hash TEXT,
    value               TEXT NOT NULL,
    created             INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    updated             INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    UNIQUE (owner_type, owner, name),
    CHECK ((owner_identity IS NOT NULL) = (owner_type = 'identity')),
    CHECK ((owner_pack IS NOT NULL) = (owner_type = 'pack')),
    CHECK ((owner_action IS NOT NULL) = (owner_type = 'action')),
    CHECK ((owner_sensor IS NOT NULL) = (owner_type = 'sensor'))
) STRICT;
CREATE INDEX key_pack ON key (owner_pack) WHERE owner_pack IS NOT NULL;
CREATE INDEX key_action ON key (owner_action) WHERE owner_action IS NOT NULL;
CREATE INDEX key_sensor ON key (owner_sensor) WHERE owner_sensor IS NOT NULL;

CREATE TABLE artifact (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Not unique on the platform either; log artifacts are found by it, the lowest id counts.
    ref              TEXT NOT NULL,
    scope            TEXT NOT NULL DEFAULT 'system'
                     CHECK (scope IN ('system', 'identity', 'pack', 'action', 'sensor')),
    owner            TEXT NOT NULL DEFAULT '',
    type             TEXT NOT NULL CHECK (type IN ('file_binary', 'file_datatable', 'file_image', 'file_text', 'other',
                                                   'progress', 'url')),
    visibility       TEXT NOT NULL DEFAULT 'private' CHECK (visibility IN ('public', 'private')),
    name             TEXT,
    description      TEXT,
    content_type     TEXT,
    size_bytes       INTEGER,
    data             TEXT,
    retention_policy TEXT NOT NULL DEFAULT 'versions'
                     CHECK (retention_policy IN ('versions', 'days', 'hours', 'minutes')),
    retention_limit  INTEGER NOT NULL DEFAULT 1,
    created          INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    updated          INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) STRICT;
CREATE INDEX artifact_ref ON artifact (ref);

CREATE TABLE artifact_version (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    artifact     INTEGER NOT NULL REFERENCES artifact (id) ON DELETE CASCADE,
    version      INTEGER NOT NULL,
    execution    INTEGER,
    content_type TEXT,
    size_bytes   INTEGER,
    content      BLOB,
    content_json TEXT,
    file_path    TEXT,
    meta         TEXT,
    created_by   TEXT,
    created      INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    UNIQUE (artifact, version)
) STRICT;
CREATE INDEX artifact_version_execution ON artifact_version (execution) WHERE execution IS NOT NULL;

CREATE TABLE pack_environment (
    id                   INTEGER PRIMARY KEY AUTOINCREMENT,
    pack                 INTEGER NOT NULL REFERENCES pack (id) ON DELETE CASCADE,
    pack_ref             TEXT NOT NULL,
    runtime              INTEGER NOT NULL REFERENCES runtime (id) ON DELETE CASCADE,
    runtime_ref          TEXT NOT NULL,
    runtime_version      INTEGER REFERENCES runtime_version (id) ON DELETE CASCADE,
    runtime_version_text TEXT,
    env_key              TEXT GENERATED ALWAYS AS (CASE
                             WHEN runtime_version IS NULL THEN 'base:' || pack || ':' || runtime
                             ELSE 'version:' || pack || ':' || runtime || ':' || runtime_version
                         END) STORED UNIQUE,
    env_path             TEXT NOT NULL,
    status               TEXT NOT NULL DEFAULT 'pending'
                         CHECK (status IN ('pending', 'installing', 'ready', 'failed', 'outdated')),
    manifest_checksum    TEXT,
    claimed_by_worker    INTEGER REFERENCES worker (id) ON DELETE SET NULL,
    claim_expires_at     INTEGER,
    installed_at         INTEGER,
    last_verified        INTEGER,
    install_log          TEXT,
    install_error        TEXT,
    metadata             TEXT DEFAULT '{}',
    created              INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    updated              INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) STRICT;
CREATE INDEX pack_environment_runtime ON pack_environment (runtime);
CREATE INDEX pack_environment_runtime_version ON pack_environment (runtime_version);
CREATE INDEX pack_environment_worker ON pack_environment (claimed_by_worker);
