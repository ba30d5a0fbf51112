"""Templates of the mapping rules: literal text and at most one `{id}`. No regular expressions.

The mapping languages that operators know from elsewhere are regular expressions over a rendered
distinguished name; unanchored ones, and ones confused by an escaped comma, have let `CN=mallory` in as
`admin`. A template matches a whole field or not at all, and can be read aloud.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from certs.errors import RuleInvalid
from certs.spiffe import is_segment

PLACEHOLDER: Final = "{id}"
MAX_TEMPLATE_CHARACTERS: Final = 512  # a hand-written line; fields longer than this never match


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A parsed template.

    Attributes:
        text: what was written.
        prefix: the literal text before `{id}`; all of it when there is no `{id}`.
        suffix: the literal text after `{id}`.
        has_id: whether `{id}` occurs.
    """

    text: str
    prefix: str
    suffix: str
    has_id: bool

    def match(self, value: str) -> str | None:
        """What stands at `{id}` when the whole of `value` fits, else None.

        A template without `{id}` answers with an empty text when `value` is equal to it.
        """
        if not self.has_id:
            return "" if value == self.prefix else None
        end = len(value) - len(self.suffix)
        if not value.startswith(self.prefix) or not value.endswith(self.suffix):
            return None
        found = value[len(self.prefix) : end] if end > len(self.prefix) else ""
        return found if is_segment(found) else None

    def fill(self, found: str) -> str:
        """The template's text with `found` in the place of `{id}`."""
        return f"{self.prefix}{found}{self.suffix}" if self.has_id else self.prefix


def parse_template(text: str) -> Template:
    """Parse a template of the configuration.

    Args:
        text: printable ASCII with at most one `{id}` and no other brace.

    Raises:
        RuleInvalid: empty, too long, not printable ASCII, two `{id}`, or another brace.
    """
    if not 1 <= len(text) <= MAX_TEMPLATE_CHARACTERS:
        raise RuleInvalid(f"a template has 1 to {MAX_TEMPLATE_CHARACTERS} characters")
    if not (text.isascii() and text.isprintable()):
        raise RuleInvalid(f"template {text!a} has characters that are not printable ASCII")
    prefix, placeholder, suffix = text.partition(PLACEHOLDER)
    if set(prefix + suffix) & {"{", "}"}:
        raise RuleInvalid(
            f"template `{text}`: only one `{PLACEHOLDER}` is allowed and no other brace"
        )
    return Template(text=text, prefix=prefix, suffix=suffix, has_id=bool(placeholder))
