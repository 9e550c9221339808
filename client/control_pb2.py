"""The messages of control.proto. Generated: change control.proto, then make this file again.

``protoc --descriptor_set_out=FILE collegium/client/control.proto`` (protoc of grpcio-tools)
writes a FileDescriptorSet; its one file stands here as base64. No generated code, so no check of
protoc's version against the installed protobuf. tests/client/test_control.py compares both files.
"""

from __future__ import annotations

import base64
from typing import Any

from google.protobuf import descriptor_pool, message_factory

_SERIALIZED = base64.b64decode(
    "Ch5jb2xsZWdpdW0vY2xpZW50L2NvbnRyb2wucHJvdG8SEWNvbGxlZ2l1bS5zaXRlLnYxIg8KDVN0YXR1c1JlcXVlc3Qi6g"
    "MKC1N0YXR1c1JlcGx5Ei4KBXBoYXNlGAEgASgOMhguY29sbGVnaXVtLnNpdGUudjEuUGhhc2VSBXBoYXNlEhIKBHNpdGUY"
    "AiABKAlSBHNpdGUSGAoHdmVyc2lvbhgDIAEoCVIHdmVyc2lvbhIfCgtwbGFuX3NoYTI1NhgEIAEoCVIKcGxhblNoYTI1Nh"
    "IcCglzaW11bGF0ZWQYBSABKAhSCXNpbXVsYXRlZBIfCgtsZWRnZXJfaGVhZBgGIAEoCVIKbGVkZ2VySGVhZBIYCgdlcHNp"
    "bG9uGAcgASgBUgdlcHNpbG9uEh8KC21heF9lcHNpbG9uGAggASgBUgptYXhFcHNpbG9uEhAKA2pvYhgJIAEoCVIDam9iEh"
    "QKBXJvdW5kGAogASgDUgVyb3VuZBIYCgdhdHRlbXB0GAsgASgDUgdhdHRlbXB0Eh0KCnN0YXJ0ZWRfYXQYDCABKAFSCXN0"
    "YXJ0ZWRBdBIcCglzdXBlcm5vZGUYDSABKAlSCXN1cGVybm9kZRItChJzdXBlcm5vZGVfcmVzdGFydHMYDiABKANSEXN1cG"
    "Vybm9kZVJlc3RhcnRzEhwKCWNhbmNlbGxlZBgPIAMoCVIJY2FuY2VsbGVkEhYKBmRldmljZRgQIAEoCVIGZGV2aWNlInkK"
    "DkFwcHJvdmVSZXF1ZXN0Eh8KC3BsYW5fc2hhMjU2GAEgASgJUgpwbGFuU2hhMjU2EiMKDXJvc3Rlcl9zaGEyNTYYAiABKA"
    "lSDHJvc3RlclNoYTI1NhIhCgx3b3Jkc19zaGEyNTYYAyABKAlSC3dvcmRzU2hhMjU2IhEKD1dpdGhkcmF3UmVxdWVzdCIh"
    "Cg1DYW5jZWxSZXF1ZXN0EhAKA2pvYhgBIAEoCVIDam9iIlAKC0NhbmNlbFJlcGx5EisKBGNvZGUYASABKA4yFy5jb2xsZW"
    "dpdW0uc2l0ZS52MS5Db2RlUgRjb2RlEhQKBWtub3duGAIgASgIUgVrbm93biITChFSb3RhdGVLZXlzUmVxdWVzdCJdCg9S"
    "b3RhdGVLZXlzUmVwbHkSKwoEY29kZRgBIAEoDjIXLmNvbGxlZ2l1bS5zaXRlLnYxLkNvZGVSBGNvZGUSHQoKcHVibGljX2"
    "tleRgCIAEoCVIJcHVibGljS2V5IjMKBERvbmUSKwoEY29kZRgBIAEoDjIXLmNvbGxlZ2l1bS5zaXRlLnYxLkNvZGVSBGNv"
    "ZGUqXwoFUGhhc2USFQoRUEhBU0VfVU5TUEVDSUZJRUQQABIMCghTVEFSVElORxABEgkKBVJFQURZEAISDAoIVFJBSU5JTk"
    "cQAxIKCgZQQVVTRUQQBBIMCghTVE9QUElORxAFKmIKBENvZGUSFAoQQ09ERV9VTlNQRUNJRklFRBAAEgYKAk9LEAESDQoJ"
    "Tk9UX1JFQURZEAISCwoHQkFEX0pPQhADEhAKDE5PVF9QT1NTSUJMRRAEEg4KCk5PVF9MT0FERUQQBTKNAwoLU2l0ZUNvbn"
    "Ryb2wSSgoGU3RhdHVzEiAuY29sbGVnaXVtLnNpdGUudjEuU3RhdHVzUmVxdWVzdBoeLmNvbGxlZ2l1bS5zaXRlLnYxLlN0"
    "YXR1c1JlcGx5EkUKB0FwcHJvdmUSIS5jb2xsZWdpdW0uc2l0ZS52MS5BcHByb3ZlUmVxdWVzdBoXLmNvbGxlZ2l1bS5zaX"
    "RlLnYxLkRvbmUSRwoIV2l0aGRyYXcSIi5jb2xsZWdpdW0uc2l0ZS52MS5XaXRoZHJhd1JlcXVlc3QaFy5jb2xsZWdpdW0u"
    "c2l0ZS52MS5Eb25lEkoKBkNhbmNlbBIgLmNvbGxlZ2l1bS5zaXRlLnYxLkNhbmNlbFJlcXVlc3QaHi5jb2xsZWdpdW0uc2"
    "l0ZS52MS5DYW5jZWxSZXBseRJWCgpSb3RhdGVLZXlzEiQuY29sbGVnaXVtLnNpdGUudjEuUm90YXRlS2V5c1JlcXVlc3Qa"
    "Ii5jb2xsZWdpdW0uc2l0ZS52MS5Sb3RhdGVLZXlzUmVwbHliBnByb3RvMw=="
)

DESCRIPTOR: Any = descriptor_pool.Default().AddSerializedFile(_SERIALIZED)
SERVICE: Any = DESCRIPTOR.services_by_name["SiteControl"]


def message(name: str) -> Any:
    """Return the class of a message of control.proto; raises ``KeyError``."""
    return message_factory.GetMessageClass(DESCRIPTOR.message_types_by_name[name])


def number(enum: str, name: str) -> int:
    """Return the number of an enum's value; raises ``KeyError``."""
    return int(DESCRIPTOR.enum_types_by_name[enum].values_by_name[name].number)


def name_of(enum: str, number: int) -> str:
    """Return the name of an enum's number, '' for one of a newer version."""
    found = DESCRIPTOR.enum_types_by_name[enum].values_by_number.get(number)
    return "" if found is None else str(found.name)
