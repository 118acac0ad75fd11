"""What must not be read by others, hidden in any text: the one rule for all that the kit prints.

Invariant: rather too much is hidden than too little. A url need not be well-formed for its password
to be found, since the urls that people paste wrongly are those that are printed.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"

_SECRET_NAMES = r"(?:pass(?:word|wd|phrase)|secret|token|api_?key|private_?key)"  # noqa: S105
_SECRET_NAME = re.compile(_SECRET_NAMES, re.IGNORECASE)
#: Most texts hold neither: they are let through at the price of one search.
_SUSPECT = re.compile(rf"://|{_SECRET_NAMES}|%[0-9a-f]{{2}}", re.IGNORECASE)

#: From one scheme to the next, or to the end of the line: a password may hold blanks and quotes.
#: Tried at the beginnings of words alone: a step may print a megabyte without a blank.
_URL = re.compile(r"(?P<scheme>\b\w+://)(?P<rest>(?:(?!\b\w+://)[^\r\n])*)")
_OPTION = re.compile(r"(?P<head>[?&;](?P<name>[\w%.+-]+)=)(?P<value>[^&\s'\"]+)")
_WHOLE_OPTION = re.compile(r"(?P<head>[?&;](?P<name>[\w%.+-]+)=)(?P<value>[^&]+)")
#: What follows a user's name and is no port: somebody forgot the host, or the @ before it.
_NO_PORT = re.compile(
    r"^(?P<user>|[^\s:/@?#\[\]'\",]+(?=:(?!\d{1,5}(?:[^\w%]|$)))):(?P<rest>[^\s'\"]+)"
)
#: ``password=x`` as in a DSN, ``"password": x`` as in JSON and Python, and a line of YAML.
_PAIR = re.compile(
    rf"""(?P<head>(?:['"][\w.-]*{_SECRET_NAMES}[\w.-]*['"]\s*:\s*
    |(?:^|[{{,\[])[ \t]*(?:-[ \t]+)?[\w.-]*{_SECRET_NAMES}[\w.-]*[ \t]*:[ \t]+
    |(?<![\w.-])[\w.-]*{_SECRET_NAMES}[\w.-]*=))
    (?P<value>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,}}\]'"&]+)""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_DONE = re.compile(rf"[^\s:/@]*:{re.escape(HIDDEN)}@")
#: A whole url without a password, with the sentence after it that an error of a broker has.
_BARE = re.compile(r"[\w.-]+:\d{1,5}(?:/\d{1,3})?: ")
#: A setting that says where a secret stands is none itself.
_REFERENCES = ("env", "{", "[", "None", "null", HIDDEN)


def masked(text: str) -> str:
    """Return ``text`` with every password, secret and token in it replaced by ``***``."""
    if not _SUSPECT.search(text):
        return text
    return _PAIR.sub(_pair, _OPTION.sub(_option, _URL.sub(_url, text)))


def masked_url(url: str) -> str:
    """Return a url, which is all of the text, without its secrets, however ill-formed it is.

    In a whole url an option ends at the next ``&`` and a password at the last ``@``, whatever
    stands between; in a text either may be followed by words.
    """
    url = _WHOLE_OPTION.sub(_option, " ".join(url.split()))
    scheme, found, rest = url.partition("://")
    secret, at, host = rest.rpartition("@")
    user, colon, _ = secret.partition(":")
    return f"{scheme}://{user}:{HIDDEN}@{host}" if found and at and colon else masked(url)


def masked_data(data: Any) -> Any:
    """Return data of mappings, lists and texts, masked; what is under a secret name is hidden."""
    if isinstance(data, Mapping):
        return {name: _under(str(name), value) for name, value in data.items()}
    if isinstance(data, str):
        return masked(data)
    if isinstance(data, Sequence) and not isinstance(data, bytes):
        return [masked_data(each) for each in data]
    return data


def names_a_secret(name: str) -> bool:
    """Return whether a setting or an option of that name holds a secret, also when it is quoted."""
    for _ in range(3):
        if _SECRET_NAME.search(name):
            return True
        name = unquote(name)
    return False


def _under(name: str, value: Any) -> Any:
    return HIDDEN if names_a_secret(name) and isinstance(value, str | int) else masked_data(value)


def _url(found: re.Match[str]) -> str:
    scheme, rest = found["scheme"], found["rest"]
    if _DONE.match(rest) or _BARE.match(
        rest
    ):  # a sentence passes here more than once, and may hold a later @
        return found[0]
    secret, at, host = rest.rpartition("@")
    user, colon, _ = secret.partition(":")
    if not at:
        return scheme + _NO_PORT.sub(rf"\g<user>:{HIDDEN}", rest)
    if not colon and not re.search(r"[?&=/\s]", user):  # a name alone is no password
        return found[0]
    if not colon or re.search(r"[/\s?#'\",]", user):
        # The @ is not this url's: another one's options, or the rest of the sentence.
        return scheme + _NO_PORT.sub(rf"\g<user>:{HIDDEN}", rest)
    return f"{scheme}{user}:{HIDDEN}@{host}"


def _option(found: re.Match[str]) -> str:
    return found["head"] + HIDDEN if names_a_secret(found["name"]) else found[0]


def _pair(found: re.Match[str]) -> str:
    value = found["value"]
    if value.startswith(_REFERENCES):
        return found[0]
    quote = value[0] if value[0] in "'\"" else ""
    return f"{found['head']}{quote}{HIDDEN}{quote}"
