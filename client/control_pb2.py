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
    "Ch5jb2xsZWdpdW0vY2xpZW50L2NvbnRyb2wucHJvdG8SEWNvbGxlZ2l1bS5zaXRlLnYxIg8KDVN0YXR1c1JlcXVlc3Qi"
    "6gMKC1N0YXR1c1JlcGx5Ei4KBXBoYXNlGAEgASgOMhguY29sbGVnaXVtLnNpdGUudjEuUGhhc2VSBXBoYXNlEhIKBHNp"
    "dGUYAiABKAlSBHNpdGUSGAoHdmVyc2lvbhgDIAEoCVIHdmVyc2lvbhIfCgtwbGFuX3NoYTI1NhgEIAEoCVIKcGxhblNo"
    "YTI1NhIcCglzaW11bGF0ZWQYBSABKAhSCXNpbXVsYXRlZBIfCgtsZWRnZXJfaGVhZBgGIAEoCVIKbGVkZ2VySGVhZBIY"
    "CgdlcHNpbG9uGAcgASgBUgdlcHNpbG9uEh8KC21heF9lcHNpbG9uGAggASgBUgptYXhFcHNpbG9uEhAKA2pvYhgJIAEo"
    "CVIDam9iEhQKBXJvdW5kGAogASgDUgVyb3VuZBIYCgdhdHRlbXB0GAsgASgDUgdhdHRlbXB0Eh0KCnN0YXJ0ZWRfYXQY"
    "DCABKAFSCXN0YXJ0ZWRBdBIcCglzdXBlcm5vZGUYDSABKAlSCXN1cGVybm9kZRItChJzdXBlcm5vZGVfcmVzdGFydHMY"
    "DiABKANSEXN1cGVybm9kZVJlc3RhcnRzEhwKCWNhbmNlbGxlZBgPIAMoCVIJY2FuY2VsbGVkEhYKBmRldmljZRgQIAEo"
    "CVIGZGV2aWNlIhAKDkFwcHJvdmVSZXF1ZXN0IhEKD1dpdGhkcmF3UmVxdWVzdCIhCg1DYW5jZWxSZXF1ZXN0EhAKA2pv"
    "YhgBIAEoCVIDam9iIhMKEVJvdGF0ZUtleXNSZXF1ZXN0Il0KD1JvdGF0ZUtleXNSZXBseRIrCgRjb2RlGAEgASgOMhcu"
    "Y29sbGVnaXVtLnNpdGUudjEuQ29kZVIEY29kZRIdCgpwdWJsaWNfa2V5GAIgASgJUglwdWJsaWNLZXkiMwoERG9uZRIr"
    "CgRjb2RlGAEgASgOMhcuY29sbGVnaXVtLnNpdGUudjEuQ29kZVIEY29kZSpfCgVQaGFzZRIVChFQSEFTRV9VTlNQRUNJ"
    "RklFRBAAEgwKCFNUQVJUSU5HEAESCQoFUkVBRFkQAhIMCghUUkFJTklORxADEgoKBlBBVVNFRBAEEgwKCFNUT1BQSU5H"
    "EAUqUgoEQ29kZRIUChBDT0RFX1VOU1BFQ0lGSUVEEAASBgoCT0sQARINCglOT1RfUkVBRFkQAhILCgdCQURfSk9CEAMS"
    "EAoMTk9UX1BPU1NJQkxFEAQyhgMKC1NpdGVDb250cm9sEkoKBlN0YXR1cxIgLmNvbGxlZ2l1bS5zaXRlLnYxLlN0YXR1"
    "c1JlcXVlc3QaHi5jb2xsZWdpdW0uc2l0ZS52MS5TdGF0dXNSZXBseRJFCgdBcHByb3ZlEiEuY29sbGVnaXVtLnNpdGUu"
    "djEuQXBwcm92ZVJlcXVlc3QaFy5jb2xsZWdpdW0uc2l0ZS52MS5Eb25lEkcKCFdpdGhkcmF3EiIuY29sbGVnaXVtLnNp"
    "dGUudjEuV2l0aGRyYXdSZXF1ZXN0GhcuY29sbGVnaXVtLnNpdGUudjEuRG9uZRJDCgZDYW5jZWwSIC5jb2xsZWdpdW0u"
    "c2l0ZS52MS5DYW5jZWxSZXF1ZXN0GhcuY29sbGVnaXVtLnNpdGUudjEuRG9uZRJWCgpSb3RhdGVLZXlzEiQuY29sbGVn"
    "aXVtLnNpdGUudjEuUm90YXRlS2V5c1JlcXVlc3QaIi5jb2xsZWdpdW0uc2l0ZS52MS5Sb3RhdGVLZXlzUmVwbHliBnBy"
    "b3RvMw=="
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
