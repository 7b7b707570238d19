"""The tables, in plain Core: rows are written and read in batches, never as objects that track themselves."""

import sqlalchemy as sa

from twinline_kit.db import UtcDateTime

METADATA = sa.MetaData()

targets = sa.Table(
    "targets",
    METADATA,
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("name", sa.String(255), unique=True),  # null once deleted: the name is free again, the id is not
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("deployment", sa.String(255), nullable=False),
    sa.Column("state", sa.String(64), nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("port", sa.Integer, nullable=False),
    sa.Column("username", sa.String(64), nullable=False),
    sa.Column("cloud_key", sa.String(255), nullable=False),
    sa.Column("host_key", sa.Text, nullable=False),
    sa.Column("host_key_learned", sa.Boolean, nullable=False),
    sa.Column("agent_id", sa.String(128), nullable=False),
    sa.Column("update_time", UtcDateTime, nullable=False),
)

scripts = sa.Table(
    "scripts",
    METADATA,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("inputs", sa.JSON, nullable=False),
    sa.Column("source", sa.LargeBinary, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("create_time", UtcDateTime, nullable=False),
)

runs = sa.Table(
    "runs",
    METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("request_id", sa.String(128), nullable=False, unique=True),
    sa.Column("asked", sa.String(64)),  # digest of what the request was for; null in runs of an older version
    sa.Column("script", sa.String(255), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("command", sa.Text, nullable=False),
    sa.Column("selector", sa.Text, nullable=False),
    sa.Column("inputs", sa.JSON, nullable=False),  # frozen, in value syntax: credentials by name only
    sa.Column("timeout", sa.Float),
    sa.Column("reach_timeout", sa.Float, nullable=False),
    sa.Column("state", sa.Integer, nullable=False),
    sa.Column("started_by", sa.String(255), nullable=False),
    sa.Column("traceparent", sa.String(64), nullable=False),
    sa.Column("create_time", UtcDateTime, nullable=False),
    sa.Column("end_time", UtcDateTime),
    sa.Column("canceled", sa.Boolean, nullable=False),
    sa.Column("open", sa.Boolean, nullable=False),  # some task is not settled
    sa.Column("owner", sa.String(32), nullable=False),  # the replica that follows it
    sa.Column("credentials", sa.JSON, nullable=False),  # update times of those its inputs name, when first opened
    sa.Column("targets", sa.JSON, nullable=False),  # names of those that were given one by one
    sa.Column("changes", sa.BigInteger, nullable=False),  # the number of the latest change of its tasks
    sa.Column("max_output", sa.BigInteger),  # bytes that hosts are told to keep; null in runs of an older version
    sa.Index("runs_newest", "create_time", "id"),
    sa.Index("runs_open", "open", "owner"),
)

tasks = sa.Table(
    "tasks",
    METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("run_id", sa.String(32), nullable=False),
    sa.Column("target_id", sa.String(128), nullable=False),
    sa.Column("target_name", sa.String(255), nullable=False),
    sa.Column("line", sa.SmallInteger, nullable=False),
    sa.Column("agent_id", sa.String(128), nullable=False),
    sa.Column("state", sa.SmallInteger, nullable=False),
    sa.Column("settled", sa.Boolean, nullable=False),  # nothing about it can change any more
    sa.Column("reason", sa.String(64), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("exit_status", sa.Integer),
    sa.Column("signal", sa.SmallInteger, nullable=False),
    sa.Column("output_size", sa.BigInteger, nullable=False),
    sa.Column("output_truncated", sa.Boolean, nullable=False),
    sa.Column("output_sha256", sa.String(64), nullable=False),
    sa.Column("create_time", UtcDateTime, nullable=False),
    sa.Column("start_time", UtcDateTime),
    sa.Column("end_time", UtcDateTime),
    sa.Column("change", sa.BigInteger, nullable=False),  # when it was last written: the run's number then
    sa.Index("tasks_changes", "run_id", "change"),
    sa.Index("tasks_names", "run_id", "target_name"),
)

output = sa.Table(
    "output",
    METADATA,
    sa.Column("task_id", sa.String(32), primary_key=True),
    sa.Column("offset", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

replicas = sa.Table(
    "replicas",
    METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("beat", sa.BigInteger, nullable=False),
)
