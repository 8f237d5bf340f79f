"""Records of runs: what happened, under which identity, and where it came from. Never imports torch."""

from tombola_cli.records.identity import evaluation_id, identity, run_id
from tombola_cli.records.provenance import command, gather, portable
from tombola_cli.records.record import Record, RecordError, Score
from tombola_cli.records.sources import SourceError, data_source, sources
from tombola_cli.records.store import find_ok, read_record, read_records, write_record

__all__ = [
    "Record",
    "RecordError",
    "Score",
    "SourceError",
    "command",
    "data_source",
    "evaluation_id",
    "find_ok",
    "gather",
    "identity",
    "portable",
    "read_record",
    "read_records",
    "run_id",
    "sources",
    "write_record",
]
