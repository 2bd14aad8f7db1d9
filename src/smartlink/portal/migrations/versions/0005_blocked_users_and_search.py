"""Blocked users, and a full-text index of messages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_SQLITE_UP = (
    (
        "CREATE VIRTUAL TABLE chat_messages_text USING fts5"
        "(message, content='chat_messages', content_rowid='id', tokenize='unicode61 remove_diacritics 2')"
    ),
    "INSERT INTO chat_messages_text(chat_messages_text) VALUES ('rebuild')",
    (
        "CREATE TRIGGER chat_messages_text_added AFTER INSERT ON chat_messages BEGIN"
        " INSERT INTO chat_messages_text(rowid, message) VALUES (new.id, new.message); END"
    ),
    (
        "CREATE TRIGGER chat_messages_text_gone AFTER DELETE ON chat_messages BEGIN"
        " INSERT INTO chat_messages_text(chat_messages_text, rowid, message)"
        " VALUES ('delete', old.id, old.message); END"
    ),
    (
        "CREATE TRIGGER chat_messages_text_changed AFTER UPDATE OF message ON chat_messages BEGIN"
        " INSERT INTO chat_messages_text(chat_messages_text, rowid, message) VALUES ('delete', old.id, old.message);"
        " INSERT INTO chat_messages_text(rowid, message) VALUES (new.id, new.message); END"
    ),
)
_SQLITE_DOWN = (
    "DROP TRIGGER chat_messages_text_added",
    "DROP TRIGGER chat_messages_text_gone",
    "DROP TRIGGER chat_messages_text_changed",
    "DROP TABLE chat_messages_text",
)
_POSTGRESQL_UP = (
    "CREATE INDEX ix_chat_messages_text ON chat_messages USING gin (to_tsvector('simple'::regconfig, message))",
)
_POSTGRESQL_DOWN = ("DROP INDEX ix_chat_messages_text",)


def upgrade() -> None:
    op.add_column("users", sa.Column("blocked_at", sa.DateTime(timezone=True)))
    _do(_SQLITE_UP, _POSTGRESQL_UP)


def downgrade() -> None:
    _do(_SQLITE_DOWN, _POSTGRESQL_DOWN)
    op.drop_column("users", "blocked_at")


def _do(on_sqlite: tuple[str, ...], on_postgresql: tuple[str, ...]) -> None:
    for statement in on_sqlite if op.get_bind().dialect.name == "sqlite" else on_postgresql:
        op.execute(statement)
