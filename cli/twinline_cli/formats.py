"""The formats that -o takes. Apart, so that help needs nothing else."""

from enum import StrEnum


class Format(StrEnum):
    """What -o takes."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    YAML = "yaml"
