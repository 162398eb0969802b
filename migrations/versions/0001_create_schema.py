"""Create the schema of the first release.

Phase: expand. Nothing ran before it.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

#: aware UTC moments
UTC = sa.DateTime(timezone=True)
#: JSON documents; None is SQL NULL
DOCUMENT = sa.JSON(none_as_null=True).with_variant(
    postgresql.JSONB(none_as_null=True), "postgresql"
)


def upgrade() -> None:
    """Create all tables and indexes."""
    op.create_table(
        "aliases",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("alias_key", sa.String(600), nullable=False),
        sa.Column("entity_id", sa.String(64), nullable=False),
        sa.Column("subject", DOCUMENT, nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "kind", "alias_key", name="pk_aliases"),
    )
    op.create_index("ix_aliases_entity_id", "aliases", ["tenant_id", "entity_id"])
    op.create_table(
        "apps",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("app_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("sensitivity", sa.SmallInteger(), nullable=False),
        sa.Column("subject_formats", DOCUMENT, nullable=False),
        sa.Column("subject_issuer", sa.String(2000), nullable=True),
        sa.Column("logout", DOCUMENT, nullable=False),
        sa.Column("client_id_at_app", sa.String(512), nullable=True),
        sa.Column("issuer", sa.String(2000), nullable=True),
        sa.Column("scim", DOCUMENT, nullable=True),
        sa.Column("scim_token_sealed", sa.Text(), nullable=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("updated_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "app_id", name="pk_apps"),
        sa.UniqueConstraint("tenant_id", "name", name="uq_apps_tenant_id_name"),
    )
    op.create_table(
        "attempts",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("task_id", sa.String(64), nullable=False),
        sa.Column("attempt_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", UTC, nullable=False),
        sa.Column("duration_ms", sa.Float(), nullable=False),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "task_id", "attempt_number", name="pk_attempts"),
    )
    op.create_table(
        "audit",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("audit_id", sa.String(64), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", UTC, nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("ref", sa.String(255), nullable=False),
        sa.Column("detail", DOCUMENT, nullable=False),
        sa.Column("previous_hash", sa.String(64), nullable=False),
        sa.Column("entry_hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "audit_id", name="pk_audit"),
        sa.UniqueConstraint("tenant_id", "number", name="uq_audit_tenant_id_number"),
    )
    op.create_table(
        "changes",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("change_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("ref", sa.String(255), nullable=False),
        sa.Column("at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "change_id", name="pk_changes"),
    )
    op.create_index("ix_changes_at", "changes", ["at", "change_id"])
    op.create_table(
        "clearances",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("clearance_id", sa.String(64), nullable=False),
        sa.Column("entity_id", sa.String(64), nullable=False),
        sa.Column("issuer", sa.String(1024), nullable=False),
        sa.Column("remedy", sa.String(96), nullable=False),
        sa.Column("level", sa.String(8), nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("occurred_at", UTC, nullable=False),
        sa.Column("signal_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "clearance_id", name="pk_clearances"),
        sa.UniqueConstraint(
            "tenant_id",
            "entity_id",
            "remedy",
            "level",
            "mode",
            "issuer",
            name="uq_clearances_tenant_id_entity_id_remedy_level_mode_issuer",
        ),
    )
    op.create_table(
        "clients",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("client_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("scopes", DOCUMENT, nullable=False),
        sa.Column("app_id", sa.String(64), nullable=True),
        sa.Column("created_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "client_id", name="pk_clients"),
        sa.UniqueConstraint("tenant_id", "name", name="uq_clients_tenant_id_name"),
        sa.UniqueConstraint("tenant_id", "token_hash", name="uq_clients_tenant_id_token_hash"),
    )
    op.create_table(
        "config_versions",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "kind", name="pk_config_versions"),
    )
    op.create_table(
        "containment_causes",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("containment_id", sa.String(64), nullable=False),
        sa.Column("detection_id", sa.String(64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("attached_at", UTC, nullable=False),
        sa.Column("cleared_at", UTC, nullable=True),
        sa.PrimaryKeyConstraint(
            "tenant_id", "containment_id", "detection_id", name="pk_containment_causes"
        ),
    )
    op.create_table(
        "containments",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("containment_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("trace_id", sa.String(128), nullable=False),
        sa.Column("actions", DOCUMENT, nullable=False),
        sa.Column("reasons", DOCUMENT, nullable=False),
        sa.Column("identifiers", DOCUMENT, nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("opened_at", UTC, nullable=False),
        sa.Column("signal_received_at", UTC, nullable=False),
        sa.Column("enforced_at", UTC, nullable=True),
        sa.Column("closed_at", UTC, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "containment_id", name="pk_containments"),
    )
    op.create_index(
        "ix_containments_tenant_id_enforced_at", "containments", ["tenant_id", "enforced_at"]
    )
    op.create_index(
        "uq_containments_tenant_id_user_id_not_closed",
        "containments",
        ["tenant_id", "user_id"],
        unique=True,
        sqlite_where=sa.text("state != 'closed'"),
        postgresql_where=sa.text("state != 'closed'"),
    )
    op.create_table(
        "deliveries",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("stream_id", sa.String(64), nullable=False),
        sa.Column("jti", sa.String(64), nullable=False),
        sa.Column("event_id", sa.String(64), nullable=False),
        sa.Column("iat", sa.BigInteger(), nullable=False),
        sa.Column("kid", sa.String(128), nullable=True),
        sa.Column("ordering_key", sa.String(512), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", UTC, nullable=False),
        sa.Column("err", sa.String(100), nullable=True),
        sa.Column("detail", sa.String(1000), nullable=True),
        sa.Column("queued_at", UTC, nullable=False),
        sa.Column("settled_at", UTC, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "stream_id", "jti", name="pk_deliveries"),
    )
    op.create_index(
        "ix_deliveries_lane",
        "deliveries",
        ["tenant_id", "stream_id", "ordering_key", "jti"],
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_deliveries_pending",
        "deliveries",
        ["tenant_id", "stream_id", "jti"],
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_table(
        "detections",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("detection_id", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("is_latest", sa.Boolean(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("source_class", sa.String(32), nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("entity_kind", sa.String(16), nullable=False),
        sa.Column("entity_id", sa.String(64), nullable=False),
        sa.Column("related", DOCUMENT, nullable=False),
        sa.Column("level", sa.String(8), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("issuer", sa.String(1024), nullable=False),
        sa.Column("occurred_at", UTC, nullable=False),
        sa.Column("detected_at", UTC, nullable=False),
        sa.Column("expires_at", UTC, nullable=True),
        sa.Column("reasons", DOCUMENT, nullable=False),
        sa.Column("evidence", DOCUMENT, nullable=False),
        sa.Column("clears_on", DOCUMENT, nullable=False),
        sa.Column("mitre", DOCUMENT, nullable=False),
        sa.Column("state", sa.String(24), nullable=False),
        sa.Column("state_at", UTC, nullable=False),
        sa.Column("state_by", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "detection_id", "revision", name="pk_detections"),
    )
    op.create_index(
        "ix_detections_active",
        "detections",
        ["tenant_id", "entity_id"],
        sqlite_where=sa.text("is_latest AND state = 'active'"),
        postgresql_where=sa.text("is_latest AND state = 'active'"),
    )
    op.create_index(
        "ix_detections_entity_id", "detections", ["tenant_id", "entity_id", "detection_id"]
    )
    op.create_table(
        "entities",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("entity_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("label", sa.String(200), nullable=False),
        sa.Column("external_id", sa.String(200), nullable=True),
        sa.Column("attributes", DOCUMENT, nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "entity_id", name="pk_entities"),
    )
    op.create_index("ix_entities_kind", "entities", ["tenant_id", "kind", "entity_id"])
    op.create_index(
        "uq_entities_external_id",
        "entities",
        ["tenant_id", "kind", "external_id"],
        unique=True,
        sqlite_where=sa.text("external_id IS NOT NULL"),
        postgresql_where=sa.text("external_id IS NOT NULL"),
    )
    op.create_table(
        "events",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("event_id", sa.String(64), nullable=False),
        sa.Column("event_type", sa.String(1024), nullable=False),
        sa.Column("payload", DOCUMENT, nullable=False),
        sa.Column("subjects", DOCUMENT, nullable=False),
        sa.Column("ordering_key", sa.String(512), nullable=False),
        sa.Column("txn", sa.String(1024), nullable=False),
        sa.Column("toe", sa.BigInteger(), nullable=True),
        sa.Column("created_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "event_id", name="pk_events"),
    )
    op.create_table(
        "kept_answers",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("client_id", sa.String(64), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("answer_sealed", sa.Text(), nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "client_id", "key", name="pk_kept_answers"),
    )
    op.create_index(
        "ix_kept_answers_tenant_id_created_at", "kept_answers", ["tenant_id", "created_at"]
    )
    op.create_table(
        "lease_members",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("seen_until", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "kind", "owner", name="pk_lease_members"),
    )
    op.create_table(
        "leases",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("bucket", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "kind", "bucket", name="pk_leases"),
    )
    op.create_table(
        "level_history",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("history_id", sa.String(64), nullable=False),
        sa.Column("entity_id", sa.String(64), nullable=False),
        sa.Column("previous_level", sa.String(8), nullable=False),
        sa.Column("level", sa.String(8), nullable=False),
        sa.Column("at", UTC, nullable=False),
        sa.Column("reasons", DOCUMENT, nullable=False),
        sa.Column("cause_ids", DOCUMENT, nullable=False),
        sa.Column("trace_id", sa.String(1024), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "history_id", name="pk_level_history"),
    )
    op.create_index(
        "ix_level_history_entity_id", "level_history", ["tenant_id", "entity_id", "history_id"]
    )
    op.create_table(
        "levels",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("entity_id", sa.String(64), nullable=False),
        sa.Column("level", sa.String(8), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("reasons", DOCUMENT, nullable=False),
        sa.Column("cause_ids", DOCUMENT, nullable=False),
        sa.Column("computed_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "entity_id", name="pk_levels"),
    )
    op.create_index("ix_levels_level", "levels", ["tenant_id", "level", "entity_id"])
    op.create_table(
        "links",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("source", sa.String(255), nullable=False),
        sa.Column("since", UTC, nullable=False),
        sa.Column("until", UTC, nullable=True),
        sa.PrimaryKeyConstraint(
            "tenant_id", "device_id", "user_id", "kind", "source", name="pk_links"
        ),
    )
    op.create_index("ix_links_user_id", "links", ["tenant_id", "user_id"])
    op.create_table(
        "pins",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("entity_id", sa.String(64), nullable=False),
        sa.Column("level", sa.String(8), nullable=False),
        sa.Column("until", UTC, nullable=True),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("set_by", sa.String(200), nullable=False),
        sa.Column("set_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "entity_id", name="pk_pins"),
    )
    op.create_table(
        "policies",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("policy_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("rules", DOCUMENT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("updated_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "policy_id", name="pk_policies"),
        sa.UniqueConstraint("tenant_id", "kind", name="uq_policies_tenant_id_kind"),
    )
    op.create_table(
        "providers",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("provider_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("issuer", sa.String(700), nullable=False),
        sa.Column("jwks_uri", sa.String(1000), nullable=True),
        sa.Column("jwks", DOCUMENT, nullable=True),
        sa.Column("audiences", DOCUMENT, nullable=False),
        sa.Column("event_types", DOCUMENT, nullable=True),
        sa.Column("subject_scope", DOCUMENT, nullable=True),
        sa.Column("critical_subject_members", DOCUMENT, nullable=False),
        sa.Column("algorithms", DOCUMENT, nullable=False),
        sa.Column("authorization_header_sealed", sa.Text(), nullable=True),
        sa.Column("level_cap", sa.String(16), nullable=True),
        sa.Column("source_class", sa.String(32), nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("legacy_subject", sa.Boolean(), nullable=False),
        sa.Column("allow_missing_typ", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("updated_at", UTC, nullable=False),
        sa.Column("deleted_at", UTC, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "provider_id", name="pk_providers"),
    )
    op.create_index(
        "uq_providers_tenant_id_name",
        "providers",
        ["tenant_id", "name"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "reassessments",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("entity_id", sa.String(64), nullable=False),
        sa.Column("reason", sa.String(16), nullable=False),
        sa.Column("due_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "entity_id", "reason", name="pk_reassessments"),
    )
    op.create_index("ix_reassessments_due_at", "reassessments", ["tenant_id", "due_at"])
    op.create_table(
        "sessions",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("iss", sa.String(1024), nullable=False),
        sa.Column("sid", sa.String(512), nullable=False),
        sa.Column("session_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("device_id", sa.String(64), nullable=True),
        sa.Column("app_id", sa.String(200), nullable=True),
        sa.Column("client", sa.String(200), nullable=True),
        sa.Column("amr", DOCUMENT, nullable=False),
        sa.Column("acr", sa.String(200), nullable=True),
        sa.Column("started_at", UTC, nullable=False),
        sa.Column("expires_at", UTC, nullable=True),
        sa.Column("ended_at", UTC, nullable=True),
        sa.Column("cookie_sha256", sa.String(64), nullable=True),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("updated_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "iss", "sid", name="pk_sessions"),
    )
    op.create_index("ix_sessions_device_id", "sessions", ["tenant_id", "device_id", "user_id"])
    op.create_index("ix_sessions_user_id", "sessions", ["tenant_id", "user_id", "session_id"])
    op.create_table(
        "signals",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("signal_id", sa.String(64), nullable=False),
        sa.Column("provider_id", sa.String(64), nullable=False),
        sa.Column("iss", sa.String(700), nullable=False),
        sa.Column("jti", sa.String(512), nullable=False),
        sa.Column("event_type", sa.String(1024), nullable=False),
        sa.Column("sub_id", DOCUMENT, nullable=False),
        sa.Column("payload", DOCUMENT, nullable=False),
        sa.Column("txn", sa.String(1024), nullable=True),
        sa.Column("raw", sa.Text(), nullable=False),
        sa.Column("occurred_at", UTC, nullable=False),
        sa.Column("received_at", UTC, nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("assessed_at", UTC, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "signal_id", name="pk_signals"),
        sa.UniqueConstraint("tenant_id", "iss", "jti", name="uq_signals_tenant_id_iss_jti"),
    )
    op.create_index(
        "ix_signals_pending",
        "signals",
        ["tenant_id", "received_at", "signal_id"],
        sqlite_where=sa.text("state = 'received'"),
        postgresql_where=sa.text("state = 'received'"),
    )
    op.create_index(
        "ix_signals_unmatched",
        "signals",
        ["tenant_id", "signal_id"],
        sqlite_where=sa.text("state = 'unmatched'"),
        postgresql_where=sa.text("state = 'unmatched'"),
    )
    op.create_table(
        "signing_keys",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("kid", sa.String(128), nullable=False),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("alg", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("public_jwk", DOCUMENT, nullable=False),
        sa.Column("private_jwk_sealed", sa.Text(), nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("changed_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "kid", name="pk_signing_keys"),
    )
    op.create_table(
        "streams",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("stream_id", sa.String(64), nullable=False),
        sa.Column("client_id", sa.String(64), nullable=False),
        sa.Column("app_id", sa.String(64), nullable=True),
        sa.Column("aud", DOCUMENT, nullable=False),
        sa.Column("method", sa.String(64), nullable=False),
        sa.Column("endpoint_url", sa.String(2048), nullable=True),
        sa.Column("authorization_header_sealed", sa.Text(), nullable=True),
        sa.Column("events_requested", DOCUMENT, nullable=False),
        sa.Column("description", sa.String(1000), nullable=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(1000), nullable=True),
        sa.Column("subject_format", sa.String(128), nullable=True),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failing_since", UTC, nullable=True),
        sa.Column("backoff_until", UTC, nullable=True),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("updated_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "stream_id", name="pk_streams"),
    )
    op.create_index("ix_streams_tenant_id_client_id", "streams", ["tenant_id", "client_id"])
    op.create_table(
        "tasks",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("task_id", sa.String(64), nullable=False),
        sa.Column("containment_id", sa.String(64), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("app_id", sa.String(64), nullable=True),
        sa.Column("webhook_id", sa.String(64), nullable=True),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("stage", sa.SmallInteger(), nullable=False),
        sa.Column("target", sa.String(96), nullable=False),
        sa.Column("lane", sa.String(192), nullable=False),
        sa.Column("bucket", sa.SmallInteger(), nullable=False),
        sa.Column("idempotency_key", sa.String(400), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("attempts_before", sa.Integer(), nullable=False),
        sa.Column("due_at", UTC, nullable=False),
        sa.Column("deadline_at", UTC, nullable=False),
        sa.Column("payload", DOCUMENT, nullable=False),
        sa.Column("result", DOCUMENT, nullable=False),
        sa.Column("proves", sa.String(16), nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("settled_at", UTC, nullable=True),
        sa.Column("undo_of", sa.String(64), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "task_id", name="pk_tasks"),
        sa.UniqueConstraint(
            "tenant_id", "idempotency_key", name="uq_tasks_tenant_id_idempotency_key"
        ),
    )
    op.create_index(
        "ix_tasks_tenant_id_bucket_queued",
        "tasks",
        ["tenant_id", "bucket", "due_at"],
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index("ix_tasks_tenant_id_containment_id", "tasks", ["tenant_id", "containment_id"])
    op.create_index(
        "ix_tasks_tenant_id_lane_queued",
        "tasks",
        ["tenant_id", "lane", "task_id"],
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index("ix_tasks_tenant_id_state_task_id", "tasks", ["tenant_id", "state", "task_id"])
    op.create_table(
        "tenants",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_tenants"),
    )
    op.create_table(
        "unmatched_aliases",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("alias_key", sa.String(640), nullable=False),
        sa.Column("signal_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "alias_key", "signal_id", name="pk_unmatched_aliases"),
    )
    op.create_index("ix_unmatched_aliases_signal", "unmatched_aliases", ["tenant_id", "signal_id"])
    op.create_table(
        "webhooks",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("webhook_id", sa.String(64), nullable=False),
        sa.Column("url", sa.String(2000), nullable=False),
        sa.Column("secret_sealed", sa.Text(), nullable=False),
        sa.Column("events", DOCUMENT, nullable=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "webhook_id", name="pk_webhooks"),
    )


def downgrade() -> None:
    """Drop all tables."""
    op.drop_table("webhooks")
    op.drop_table("unmatched_aliases")
    op.drop_table("tenants")
    op.drop_table("tasks")
    op.drop_table("streams")
    op.drop_table("signing_keys")
    op.drop_table("signals")
    op.drop_table("sessions")
    op.drop_table("reassessments")
    op.drop_table("providers")
    op.drop_table("policies")
    op.drop_table("pins")
    op.drop_table("links")
    op.drop_table("levels")
    op.drop_table("level_history")
    op.drop_table("leases")
    op.drop_table("lease_members")
    op.drop_table("kept_answers")
    op.drop_table("events")
    op.drop_table("entities")
    op.drop_table("detections")
    op.drop_table("deliveries")
    op.drop_table("containments")
    op.drop_table("containment_causes")
    op.drop_table("config_versions")
    op.drop_table("clients")
    op.drop_table("clearances")
    op.drop_table("changes")
    op.drop_table("audit")
    op.drop_table("attempts")
    op.drop_table("apps")
    op.drop_table("aliases")
