-- The platform's tables, as far as agents, sensors and hub use them, in the form that the platform's own services expect.
--
-- Plain SQL for PostgreSQL 14 and later, without extensions. Everything goes into the first schema of the search path. It
-- may run again: what exists is left alone. Names of tables, columns, types and channels are facts of the platform.

-- Enums ---------------------------------------------------------------------------------------------------------------

DO $do$
DECLARE
    kind record;
BEGIN
    FOR kind IN
        SELECT * FROM (VALUES
            ('worker_type_enum', ARRAY['local', 'remote', 'container']),
            ('worker_role_enum', ARRAY['action', 'sensor']),
            ('worker_status_enum', ARRAY['active', 'inactive', 'busy', 'error']),
            ('sensor_process_status_enum', ARRAY['starting', 'running', 'stopped', 'failed', 'backoff']),
            ('enforcement_status_enum', ARRAY['created', 'processed', 'disabled']),
            ('enforcement_condition_enum', ARRAY['any', 'all']),
            ('execution_status_enum', ARRAY['requested', 'scheduling', 'scheduled', 'running', 'completed', 'failed',
                                            'canceling', 'cancelled', 'timeout', 'abandoned']),
            ('owner_type_enum', ARRAY['system', 'identity', 'pack', 'action', 'sensor']),
            ('artifact_type_enum', ARRAY['file_binary', 'file_datatable', 'file_image', 'file_text', 'other', 'progress',
                                         'url']),
            ('artifact_retention_enum', ARRAY['versions', 'days', 'hours', 'minutes']),
            ('artifact_visibility_enum', ARRAY['public', 'private']),
            ('pack_environment_status_enum', ARRAY['pending', 'installing', 'ready', 'failed', 'outdated'])
        ) AS kinds (name, labels)
    LOOP
        IF NOT EXISTS (SELECT FROM pg_type
                       WHERE typname = kind.name AND typnamespace = current_schema()::regnamespace) THEN
            EXECUTE format('CREATE TYPE %I AS ENUM (%s)', kind.name,
                           (SELECT string_agg(quote_literal(label), ', ' ORDER BY place)
                            FROM unnest(kind.labels) WITH ORDINALITY AS labels (label, place)));
        END IF;
    END LOOP;
END
$do$;

-- Tables --------------------------------------------------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS identity (
    id            bigserial PRIMARY KEY,
    login         text NOT NULL UNIQUE,
    display_name  text,
    password_hash text,
    attributes    jsonb NOT NULL DEFAULT '{}',
    created       timestamptz NOT NULL DEFAULT now(),
    updated       timestamptz NOT NULL DEFAULT now(),
    frozen        boolean NOT NULL DEFAULT false
);
CREATE UNIQUE INDEX IF NOT EXISTS identity_oidc
    ON identity ((attributes -> 'oidc' ->> 'issuer'), (attributes -> 'oidc' ->> 'sub')) WHERE attributes ? 'oidc';

CREATE TABLE IF NOT EXISTS pack (
    id                  bigserial PRIMARY KEY,
    ref                 text NOT NULL UNIQUE CHECK (ref ~ '^[a-z][a-z0-9_-]+$'),
    label               text NOT NULL,
    description         text,
    version             text NOT NULL
                        CHECK (version ~ '^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$'),
    conf_schema         jsonb NOT NULL DEFAULT '{}',
    config              jsonb NOT NULL DEFAULT '{}',
    meta                jsonb NOT NULL DEFAULT '{}',
    tags                text[] NOT NULL DEFAULT '{}',
    runtime_deps        text[] NOT NULL DEFAULT '{}',
    dependencies        text[] NOT NULL DEFAULT '{}',
    is_standard         boolean NOT NULL DEFAULT false,
    installers          jsonb DEFAULT '[]',
    source_type         text,
    source_url          text,
    source_ref          text,
    checksum            text,
    checksum_verified   boolean DEFAULT false,
    installed_at        timestamptz,
    installed_by        bigint REFERENCES identity (id) ON DELETE SET NULL,
    installation_method text,
    storage_path        text,
    created             timestamptz NOT NULL DEFAULT now(),
    updated             timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS runtime (
    id               bigserial PRIMARY KEY,
    ref              text NOT NULL UNIQUE CHECK (ref = lower(ref)),
    pack             bigint REFERENCES pack (id) ON DELETE CASCADE,
    pack_ref         text,
    description      text,
    name             text NOT NULL,
    aliases          text[] NOT NULL DEFAULT '{}',
    distributions    jsonb NOT NULL,
    installation     jsonb,
    installers       jsonb DEFAULT '[]',
    execution_config jsonb NOT NULL DEFAULT '{}',
    auto_detected    boolean NOT NULL DEFAULT false,
    detection_config jsonb NOT NULL DEFAULT '{}',
    created          timestamptz NOT NULL DEFAULT now(),
    updated          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS runtime_pack ON runtime (pack);
CREATE INDEX IF NOT EXISTS runtime_aliases ON runtime USING gin (aliases);

CREATE TABLE IF NOT EXISTS runtime_version (
    id               bigserial PRIMARY KEY,
    runtime          bigint NOT NULL REFERENCES runtime (id) ON DELETE CASCADE,
    runtime_ref      text NOT NULL,
    version          text NOT NULL,
    version_major    integer,
    version_minor    integer,
    version_patch    integer,
    execution_config jsonb NOT NULL DEFAULT '{}',
    distributions    jsonb NOT NULL DEFAULT '{}',
    is_default       boolean NOT NULL DEFAULT false,
    available        boolean NOT NULL DEFAULT true,
    verified_at      timestamptz,
    meta             jsonb NOT NULL DEFAULT '{}',
    created          timestamptz NOT NULL DEFAULT now(),
    updated          timestamptz NOT NULL DEFAULT now(),
    UNIQUE (runtime, version)
);

CREATE TABLE IF NOT EXISTS worker (
    id             bigserial PRIMARY KEY,
    name           text NOT NULL UNIQUE,
    worker_type    worker_type_enum NOT NULL,
    worker_role    worker_role_enum NOT NULL,
    runtime        bigint REFERENCES runtime (id) ON DELETE SET NULL,
    host           text,
    port           integer,
    status         worker_status_enum NOT NULL DEFAULT 'active',
    capabilities   jsonb,
    meta           jsonb,
    last_heartbeat timestamptz,
    cordoned       boolean NOT NULL DEFAULT false,
    cordon_reason  text,
    cordoned_by    bigint REFERENCES identity (id) ON DELETE SET NULL,
    cordoned_at    timestamptz,
    created        timestamptz NOT NULL DEFAULT now(),
    updated        timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS sensor (
    id                         bigserial PRIMARY KEY,
    ref                        text NOT NULL UNIQUE CHECK (ref = lower(ref) AND ref ~ '^[^.]+\.[^.]+$'),
    pack                       bigint REFERENCES pack (id) ON DELETE CASCADE,
    pack_ref                   text,
    label                      text NOT NULL,
    description                text,
    entrypoint                 text NOT NULL,
    runtime                    bigint NOT NULL REFERENCES runtime (id) ON DELETE CASCADE,
    runtime_ref                text NOT NULL,
    enabled                    boolean NOT NULL,
    is_adhoc                   boolean NOT NULL DEFAULT false,
    param_schema               jsonb,
    config                     jsonb,
    runtime_version_constraint text,
    worker_selector            jsonb NOT NULL DEFAULT '{}',
    worker_tolerations         jsonb NOT NULL DEFAULT '[]',
    worker_affinity            jsonb NOT NULL DEFAULT '{}',
    log_retention_policy       artifact_retention_enum,
    log_retention_limit        integer CHECK (log_retention_limit > 0),
    artifact_retention_policy  artifact_retention_enum,
    artifact_retention_limit   integer CHECK (artifact_retention_limit > 0),
    created                    timestamptz NOT NULL DEFAULT now(),
    updated                    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS sensor_pack ON sensor (pack);
CREATE INDEX IF NOT EXISTS sensor_runtime ON sensor (runtime);

CREATE TABLE IF NOT EXISTS sensor_process (
    id                         bigserial PRIMARY KEY,
    sensor                     bigint NOT NULL REFERENCES sensor (id) ON DELETE CASCADE,
    sensor_ref                 text NOT NULL,
    worker                     bigint NOT NULL REFERENCES worker (id) ON DELETE CASCADE,
    worker_name                text NOT NULL,
    status                     sensor_process_status_enum NOT NULL DEFAULT 'starting',
    pid                        integer CHECK (pid > 0),
    consecutive_failures       integer NOT NULL DEFAULT 0 CHECK (consecutive_failures >= 0),
    last_exit_code             integer,
    last_signal                integer,
    last_started_at            timestamptz,
    last_stopped_at            timestamptz,
    next_restart_at            timestamptz,
    stderr_excerpt             text,
    log_artifact_ref           text,
    active_rule_count          integer NOT NULL DEFAULT 0 CHECK (active_rule_count >= 0),
    last_alerted_failure_count integer NOT NULL DEFAULT 0 CHECK (last_alerted_failure_count >= 0),
    last_alerted_at            timestamptz,
    meta                       jsonb NOT NULL DEFAULT '{}',
    created                    timestamptz NOT NULL DEFAULT now(),
    updated                    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (sensor, worker),
    UNIQUE (sensor_ref, worker_name)
);
CREATE INDEX IF NOT EXISTS sensor_process_worker ON sensor_process (worker);

CREATE TABLE IF NOT EXISTS "trigger" (
    id              bigserial PRIMARY KEY,
    ref             text NOT NULL UNIQUE CHECK (ref = lower(ref) AND ref ~ '^[^.]+\.[^.]+$'),
    pack            bigint REFERENCES pack (id) ON DELETE CASCADE,
    pack_ref        text,
    label           text NOT NULL,
    description     text,
    enabled         boolean NOT NULL DEFAULT true,
    is_adhoc        boolean NOT NULL DEFAULT false,
    param_schema    jsonb,
    out_schema      jsonb,
    webhook_enabled boolean NOT NULL DEFAULT false,
    webhook_key     varchar(64) UNIQUE,
    webhook_config  jsonb DEFAULT '{}',
    sensor          bigint REFERENCES sensor (id) ON DELETE SET NULL,
    sensor_ref      text,
    created         timestamptz NOT NULL DEFAULT now(),
    updated         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS trigger_pack ON "trigger" (pack);
CREATE INDEX IF NOT EXISTS trigger_sensor ON "trigger" (sensor);

CREATE TABLE IF NOT EXISTS action (
    id                                    bigserial PRIMARY KEY,
    ref                                   text NOT NULL UNIQUE CHECK (ref = lower(ref) AND ref ~ '^[^.]+\.[^.]+$'),
    pack                                  bigint NOT NULL REFERENCES pack (id) ON DELETE CASCADE,
    pack_ref                              text NOT NULL,
    label                                 text NOT NULL,
    description                           text,
    entrypoint                            text NOT NULL,
    runtime                               bigint REFERENCES runtime (id),
    param_schema                          jsonb,
    out_schema                            jsonb,
    parameter_delivery                    text NOT NULL DEFAULT 'stdin' CHECK (parameter_delivery IN ('stdin', 'file')),
    parameter_format                      text NOT NULL DEFAULT 'json'
                                          CHECK (parameter_format IN ('dotenv', 'json', 'yaml')),
    output_format                         text NOT NULL DEFAULT 'text'
                                          CHECK (output_format IN ('text', 'json', 'yaml', 'jsonl')),
    is_adhoc                              boolean NOT NULL DEFAULT false,
    timeout_seconds                       integer,
    max_retries                           integer DEFAULT 0,
    runtime_version_constraint            text,
    accesses_mcp                          boolean NOT NULL DEFAULT false,
    default_execution_permission_set_refs text[] NOT NULL DEFAULT '{}',
    log_retention_policy                  artifact_retention_enum,
    log_retention_limit                   integer CHECK (log_retention_limit > 0),
    artifact_retention_policy             artifact_retention_enum,
    artifact_retention_limit              integer CHECK (artifact_retention_limit > 0),
    created                               timestamptz NOT NULL DEFAULT now(),
    updated                               timestamptz NOT NULL DEFAULT now(),
    workflow_def                          bigint,  -- workflows are the platform's; nothing here refers to them
    required_worker_runtimes              jsonb NOT NULL DEFAULT '{}',
    worker_selector                       jsonb NOT NULL DEFAULT '{}',
    worker_tolerations                    jsonb NOT NULL DEFAULT '[]',
    worker_affinity                       jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS action_pack ON action (pack);
CREATE INDEX IF NOT EXISTS action_runtime ON action (runtime);

CREATE TABLE IF NOT EXISTS rule (
    id                  bigserial PRIMARY KEY,
    ref                 text NOT NULL UNIQUE CHECK (ref = lower(ref) AND ref ~ '^[^.]+\.[^.]+$'),
    pack                bigint NOT NULL REFERENCES pack (id) ON DELETE CASCADE,
    pack_ref            text NOT NULL,
    label               text NOT NULL,
    description         text,
    action              bigint REFERENCES action (id) ON DELETE SET NULL,
    action_ref          text NOT NULL,
    "trigger"           bigint REFERENCES "trigger" (id) ON DELETE SET NULL,
    trigger_ref         text NOT NULL,
    conditions          jsonb NOT NULL DEFAULT '[]',
    action_params       jsonb DEFAULT '{}',
    trigger_params      jsonb DEFAULT '{}',
    permission_set_refs text[],
    enabled             boolean NOT NULL,
    is_adhoc            boolean NOT NULL DEFAULT false,
    owner_identity      bigint REFERENCES identity (id) ON DELETE SET NULL,
    created             timestamptz NOT NULL DEFAULT now(),
    updated             timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS rule_pack ON rule (pack);
CREATE INDEX IF NOT EXISTS rule_action ON rule (action);
CREATE INDEX IF NOT EXISTS rule_trigger ON rule ("trigger");

CREATE TABLE IF NOT EXISTS event (
    id          bigserial PRIMARY KEY,
    "trigger"   bigint REFERENCES "trigger" (id) ON DELETE SET NULL,
    trigger_ref text NOT NULL,
    config      jsonb,
    payload     jsonb,
    source      bigint REFERENCES sensor (id) ON DELETE SET NULL,
    source_ref  text,
    created     timestamptz NOT NULL DEFAULT now(),
    rule        bigint REFERENCES rule (id) ON DELETE SET NULL,
    rule_ref    text
);
CREATE INDEX IF NOT EXISTS event_trigger ON event ("trigger");
CREATE INDEX IF NOT EXISTS event_source ON event (source) WHERE source IS NOT NULL;
CREATE INDEX IF NOT EXISTS event_rule ON event (rule) WHERE rule IS NOT NULL;
CREATE INDEX IF NOT EXISTS event_created ON event (created);

CREATE TABLE IF NOT EXISTS enforcement (
    id          bigserial PRIMARY KEY,
    rule        bigint REFERENCES rule (id) ON DELETE SET NULL,
    rule_ref    text NOT NULL,
    trigger_ref text NOT NULL,
    config      jsonb,
    event       bigint,
    status      enforcement_status_enum NOT NULL DEFAULT 'created',
    payload     jsonb NOT NULL,
    condition   enforcement_condition_enum NOT NULL DEFAULT 'all' CHECK (condition IN ('any', 'all')),
    conditions  jsonb NOT NULL DEFAULT '[]',
    created     timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz
);
CREATE UNIQUE INDEX IF NOT EXISTS enforcement_rule_event
    ON enforcement (rule, event) WHERE rule IS NOT NULL AND event IS NOT NULL;
CREATE INDEX IF NOT EXISTS enforcement_event ON enforcement (event);

CREATE TABLE IF NOT EXISTS execution (
    id                        bigserial PRIMARY KEY,
    action                    bigint REFERENCES action (id) ON DELETE SET NULL,
    action_ref                text NOT NULL,
    config                    jsonb,
    env_vars                  jsonb,
    parent                    bigint REFERENCES execution (id) ON DELETE SET NULL,
    enforcement               bigint REFERENCES enforcement (id) ON DELETE SET NULL,
    executor                  bigint REFERENCES identity (id) ON DELETE SET NULL,
    permission_set_refs       text[] NOT NULL DEFAULT '{}',
    artifact_retention_policy artifact_retention_enum,
    artifact_retention_limit  integer CHECK (artifact_retention_limit > 0),
    worker_selector           jsonb,
    worker_tolerations        jsonb,
    worker_affinity           jsonb,
    worker                    bigint REFERENCES worker (id) ON DELETE SET NULL,
    status                    execution_status_enum NOT NULL DEFAULT 'requested',
    result                    jsonb,
    started_at                timestamptz,
    created                   timestamptz NOT NULL DEFAULT now(),
    workflow_def              bigint,
    workflow_task             jsonb,
    retry_count               integer NOT NULL DEFAULT 0,
    max_retries               integer,
    retry_reason              text,
    original_execution        bigint REFERENCES execution (id) ON DELETE SET NULL,
    updated                   timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX IF NOT EXISTS execution_enforcement
    ON execution (enforcement)
    WHERE enforcement IS NOT NULL AND parent IS NULL AND NOT coalesce(config ? 'retry_of', false);
-- What is not over yet is little and asked for often.
CREATE INDEX IF NOT EXISTS execution_open ON execution (status, updated)
    WHERE status IN ('requested', 'scheduling', 'scheduled', 'running', 'canceling');
CREATE INDEX IF NOT EXISTS execution_worker_open ON execution (worker)
    WHERE status IN ('scheduled', 'running', 'canceling');
CREATE INDEX IF NOT EXISTS execution_action ON execution (action);
CREATE INDEX IF NOT EXISTS execution_action_ref ON execution (action_ref);
CREATE INDEX IF NOT EXISTS execution_created ON execution (created);
CREATE INDEX IF NOT EXISTS execution_any_enforcement ON execution (enforcement) WHERE enforcement IS NOT NULL;
CREATE INDEX IF NOT EXISTS execution_parent ON execution (parent) WHERE parent IS NOT NULL;
CREATE INDEX IF NOT EXISTS execution_original ON execution (original_execution) WHERE original_execution IS NOT NULL;
CREATE INDEX IF NOT EXISTS execution_worker ON execution (worker) WHERE worker IS NOT NULL;

CREATE TABLE IF NOT EXISTS execution_secret_value (
    id                  bigserial PRIMARY KEY,
    entity_type         text NOT NULL,
    entity_id           bigint NOT NULL,
    json_path           text NOT NULL,
    source_kind         text NOT NULL,
    source_ref          text,
    encrypted_value     jsonb NOT NULL,
    encryption_key_hash text,
    created             timestamptz NOT NULL DEFAULT now(),
    UNIQUE (entity_type, entity_id, json_path)
);

CREATE TABLE IF NOT EXISTS key (
    id                  bigserial PRIMARY KEY,
    ref                 text NOT NULL UNIQUE CHECK (ref = lower(ref) AND ref ~ '^[^.]+(\.[^.]+)*$'),
    owner_type          owner_type_enum NOT NULL,
    owner               text,
    owner_identity      bigint REFERENCES identity (id),
    owner_pack          bigint REFERENCES pack (id),
    owner_pack_ref      text,
    owner_action        bigint REFERENCES action (id) ON DELETE CASCADE,
    owner_action_ref    text,
    owner_sensor        bigint REFERENCES sensor (id) ON DELETE CASCADE,
    owner_sensor_ref    text,
    name                text NOT NULL,
    encrypted           boolean NOT NULL,
    encryption_key_hash text,
    value               jsonb NOT NULL,
    created             timestamptz NOT NULL DEFAULT now(),
    updated             timestamptz NOT NULL DEFAULT now(),
    UNIQUE (owner_type, owner, name)
);
CREATE INDEX IF NOT EXISTS key_pack ON key (owner_pack) WHERE owner_pack IS NOT NULL;
CREATE INDEX IF NOT EXISTS key_action ON key (owner_action) WHERE owner_action IS NOT NULL;
CREATE INDEX IF NOT EXISTS key_sensor ON key (owner_sensor) WHERE owner_sensor IS NOT NULL;

CREATE TABLE IF NOT EXISTS artifact (
    id               bigserial PRIMARY KEY,
    ref              text NOT NULL,
    scope            owner_type_enum NOT NULL DEFAULT 'system',
    owner            text NOT NULL DEFAULT '',
    type             artifact_type_enum NOT NULL,
    visibility       artifact_visibility_enum NOT NULL DEFAULT 'private',
    name             text,
    description      text,
    content_type     text,
    size_bytes       bigint,
    data             jsonb,
    retention_policy artifact_retention_enum NOT NULL DEFAULT 'versions',
    retention_limit  integer NOT NULL DEFAULT 1,
    created          timestamptz NOT NULL DEFAULT now(),
    updated          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS artifact_ref ON artifact (ref);

CREATE TABLE IF NOT EXISTS artifact_version (
    id           bigserial PRIMARY KEY,
    artifact     bigint NOT NULL REFERENCES artifact (id) ON DELETE CASCADE,
    version      integer NOT NULL,
    execution    bigint,
    content_type text,
    size_bytes   bigint,
    content      bytea,
    content_json jsonb,
    file_path    text,
    meta         jsonb,
    created_by   text,
    created      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (artifact, version)
);
CREATE INDEX IF NOT EXISTS artifact_version_execution ON artifact_version (execution) WHERE execution IS NOT NULL;

CREATE TABLE IF NOT EXISTS pack_environment (
    id                   bigserial PRIMARY KEY,
    pack                 bigint NOT NULL REFERENCES pack (id) ON DELETE CASCADE,
    pack_ref             text NOT NULL,
    runtime              bigint NOT NULL REFERENCES runtime (id) ON DELETE CASCADE,
    runtime_ref          text NOT NULL,
    runtime_version      bigint REFERENCES runtime_version (id) ON DELETE CASCADE,
    runtime_version_text text,
    env_key              text UNIQUE GENERATED ALWAYS AS (
                             CASE WHEN runtime_version IS NULL THEN 'base:' || pack::text || ':' || runtime::text
                                  ELSE 'version:' || pack::text || ':' || runtime::text || ':' || runtime_version::text
                             END
                         ) STORED,
    env_path             text NOT NULL,
    status               pack_environment_status_enum NOT NULL DEFAULT 'pending',
    manifest_checksum    text,
    claimed_by_worker    bigint REFERENCES worker (id) ON DELETE SET NULL,
    claim_expires_at     timestamptz,
    installed_at         timestamptz,
    last_verified        timestamptz,
    install_log          text,
    install_error        text,
    metadata             jsonb DEFAULT '{}',
    created              timestamptz NOT NULL DEFAULT now(),
    updated              timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS pack_environment_runtime ON pack_environment (runtime);
CREATE INDEX IF NOT EXISTS pack_environment_runtime_version ON pack_environment (runtime_version);
CREATE INDEX IF NOT EXISTS pack_environment_worker ON pack_environment (claimed_by_worker);

-- `updated` -----------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION attune_touch() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    NEW.updated := now();
    RETURN NEW;
END
$body$;

DO $do$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['identity', 'pack', 'runtime', 'runtime_version', 'worker', 'sensor', 'sensor_process',
                                'trigger', 'action', 'rule', 'execution', 'key', 'artifact',
                                'pack_environment']
    LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER attune_touch BEFORE UPDATE ON %I '
                       'FOR EACH ROW EXECUTE FUNCTION attune_touch()', name);
    END LOOP;
END
$do$;

-- Owners of keys ------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION attune_key_owner() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
    owners integer := num_nonnulls(NEW.owner_identity, NEW.owner_pack, NEW.owner_action, NEW.owner_sensor);
BEGIN
    IF NEW.owner_type = 'system' THEN
        IF owners > 0 THEN
            RAISE EXCEPTION 'key %: a system key has no other owner', NEW.ref;
        END IF;
        NEW.owner := 'system';
        RETURN NEW;
    END IF;
    NEW.owner := CASE NEW.owner_type
        WHEN 'identity' THEN NEW.owner_identity
        WHEN 'pack' THEN NEW.owner_pack
        WHEN 'action' THEN NEW.owner_action
        WHEN 'sensor' THEN NEW.owner_sensor
    END::text;
    IF NEW.owner IS NULL OR owners <> 1 THEN
        RAISE EXCEPTION 'key %: a key of type % has exactly that owner', NEW.ref, NEW.owner_type;
    END IF;
    RETURN NEW;
END
$body$;

CREATE OR REPLACE TRIGGER attune_key_owner BEFORE INSERT OR UPDATE ON key
    FOR EACH ROW EXECUTE FUNCTION attune_key_owner();

-- Versions of artifacts -----------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION attune_artifact_retention() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
    kept integer;
BEGIN
    SELECT retention_limit INTO kept FROM artifact WHERE id = NEW.artifact AND retention_policy = 'versions';
    IF kept > 0 THEN
        DELETE FROM artifact_version
        WHERE artifact = NEW.artifact
          AND version NOT IN (SELECT version FROM artifact_version WHERE artifact = NEW.artifact
                              ORDER BY version DESC LIMIT kept);
    END IF;
    UPDATE artifact SET size_bytes = NEW.size_bytes, content_type = coalesce(NEW.content_type, content_type)
    WHERE id = NEW.artifact;
    RETURN NULL;
END
$body$;

CREATE OR REPLACE TRIGGER attune_artifact_retention AFTER INSERT ON artifact_version
    FOR EACH ROW EXECUTE FUNCTION attune_artifact_retention();

-- Notifications -------------------------------------------------------------------------------------------------------

-- A payload of 8000 bytes or more would fail the write that it tells of, so what can be long is left out then.
CREATE OR REPLACE FUNCTION attune_notify(channel text, payload jsonb, long text[] DEFAULT '{}') RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
    IF octet_length(payload::text) >= 8000 THEN
        payload := payload - long;
    END IF;
    IF octet_length(payload::text) < 8000 THEN
        PERFORM pg_notify(channel, payload::text);
    END IF;
END
$body$;

CREATE OR REPLACE FUNCTION attune_notify_event() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    PERFORM attune_notify('event_created', jsonb_build_object(
        'entity_type', 'event', 'entity_id', NEW.id, 'id', NEW.id, 'trigger', NEW."trigger",
        'trigger_ref', NEW.trigger_ref, 'source', NEW.source, 'source_ref', NEW.source_ref, 'rule', NEW.rule,
        'rule_ref', NEW.rule_ref, 'has_payload', NEW.payload IS NOT NULL, 'created', NEW.created));
    RETURN NULL;
END
$body$;

CREATE OR REPLACE TRIGGER attune_notify_event AFTER INSERT ON event
    FOR EACH ROW EXECUTE FUNCTION attune_notify_event();

CREATE OR REPLACE FUNCTION attune_notify_enforcement() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
    payload jsonb := jsonb_build_object(
        'entity_type', 'enforcement', 'entity_id', NEW.id, 'id', NEW.id, 'rule', NEW.rule, 'rule_ref', NEW.rule_ref,
        'trigger_ref', NEW.trigger_ref, 'event', NEW.event, 'status', NEW.status, 'condition', NEW.condition,
        'created', NEW.created, 'resolved_at', NEW.resolved_at);
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM attune_notify('enforcement_created', payload);
    ELSE
        PERFORM attune_notify('enforcement_status_changed', payload || jsonb_build_object('old_status', OLD.status));
    END IF;
    RETURN NULL;
END
$body$;

CREATE OR REPLACE TRIGGER attune_notify_enforcement_created AFTER INSERT ON enforcement
    FOR EACH ROW EXECUTE FUNCTION attune_notify_enforcement();
CREATE OR REPLACE TRIGGER attune_notify_enforcement_status AFTER UPDATE OF status ON enforcement
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION attune_notify_enforcement();

CREATE OR REPLACE FUNCTION attune_notify_execution() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
    cause record;
    payload jsonb;
BEGIN
    SELECT rule_ref, trigger_ref INTO cause FROM enforcement WHERE id = NEW.enforcement;
    payload := jsonb_build_object(
        'entity_type', 'execution', 'entity_id', NEW.id, 'id', NEW.id, 'action_id', NEW.action,
        'action_ref', NEW.action_ref, 'status', NEW.status, 'enforcement', NEW.enforcement, 'rule_ref', cause.rule_ref,
        'trigger_ref', cause.trigger_ref, 'parent', NEW.parent, 'started_at', NEW.started_at,
        'workflow_task', NEW.workflow_task, 'created', NEW.created, 'updated', NEW.updated);
    IF TG_OP = 'INSERT' THEN
        PERFORM attune_notify('execution_created', payload, ARRAY['workflow_task']);
        RETURN NULL;
    END IF;
    payload := payload || jsonb_build_object('old_status', OLD.status);
    PERFORM attune_notify('execution_status_changed', payload, ARRAY['workflow_task']);
    IF NEW.workflow_def IS NOT NULL THEN
        PERFORM attune_notify('workflow_execution_status_changed', jsonb_build_object(
            'entity_type', 'execution', 'entity_id', NEW.id, 'id', NEW.id, 'action_ref', NEW.action_ref,
            'status', NEW.status, 'old_status', OLD.status, 'workflow_def', NEW.workflow_def, 'parent', NEW.parent,
            'created', NEW.created, 'updated', NEW.updated));
    END IF;
    RETURN NULL;
END
$body$;

CREATE OR REPLACE TRIGGER attune_notify_execution_created AFTER INSERT ON execution
    FOR EACH ROW EXECUTE FUNCTION attune_notify_execution();
CREATE OR REPLACE TRIGGER attune_notify_execution_status AFTER UPDATE OF status ON execution
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION attune_notify_execution();

CREATE OR REPLACE FUNCTION attune_notify_artifact() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
    payload jsonb := jsonb_build_object(
        'entity_type', 'artifact', 'entity_id', NEW.id, 'id', NEW.id, 'ref', NEW.ref, 'type', NEW.type,
        'visibility', NEW.visibility, 'name', NEW.name, 'scope', NEW.scope, 'owner', NEW.owner,
        'content_type', NEW.content_type, 'size_bytes', NEW.size_bytes, 'created', NEW.created);
    latest jsonb;
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM attune_notify('artifact_created', payload, ARRAY['name']);
        RETURN NULL;
    END IF;
    IF NEW.type = 'progress' AND jsonb_typeof(NEW.data) = 'array' THEN
        latest := NEW.data -> -1;
    END IF;
    payload := payload || jsonb_build_object(
        'progress_percent', latest -> 'percent', 'progress_message', latest -> 'message',
        'progress_entries', CASE WHEN latest IS NOT NULL THEN jsonb_array_length(NEW.data) END, 'updated', NEW.updated);
    PERFORM attune_notify('artifact_updated', payload, ARRAY['progress_message', 'name']);
    RETURN NULL;
END
$body$;

CREATE OR REPLACE TRIGGER attune_notify_artifact_created AFTER INSERT ON artifact
    FOR EACH ROW EXECUTE FUNCTION attune_notify_artifact();
CREATE OR REPLACE TRIGGER attune_notify_artifact_updated AFTER UPDATE ON artifact
    FOR EACH ROW EXECUTE FUNCTION attune_notify_artifact();

-- Identity 1 is the default executor and the subject of worker tokens -----------------------------------------------------

INSERT INTO identity (id, login, display_name) VALUES (1, 'system', 'System') ON CONFLICT DO NOTHING;
SELECT setval(pg_get_serial_sequence('identity', 'id'), (SELECT max(id) FROM identity));
