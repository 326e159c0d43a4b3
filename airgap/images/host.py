"""What an image build takes over from this machine: package mirrors, trusted certificates, pip's index."""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_APT = Path("/etc/apt")
_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
_PIP_FILES = ("/etc/pip.conf", "/etc/xdg/pip/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
_PIP_CARRIED = ("index-url", "extra-index-url", "trusted-host", "timeout")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

IMAGE_CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def has_credentials(url: str) -> bool:
    """Whether a URL carries a user name or password, which must not end up in an image."""
    return "@" in urlsplit(url).netloc


def ca_certificates() -> list[str]:
    """The certificates trusted here beyond those of the ca-certificates package (PEM, sorted)."""
    bundles = [os.environ.get("SSL_CERT_FILE"), _pip_settings().get("cert"), *_SYSTEM_BUNDLES]
    trusted = {pem for bundle in filter(None, bundles) for pem in _certificates(Path(bundle).expanduser())}
    packaged = {
        pem for path in Path("/usr/share/ca-certificates").rglob("*.crt") for pem in _certificates(path)
    }
    return sorted(trusted - packaged)


def debian_mirrors() -> tuple[str, str]:
    """The package mirror and the security mirror: this machine's own where it is a Debian, else Debian's."""
    uris = [uri for uri in _apt_uris() if uri.startswith("http") and not has_credentials(uri)]
    main = next((uri for uri in uris if uri.endswith("/debian")), "http://deb.debian.org/debian")
    security = next(
        (uri for uri in uris if uri.endswith("/debian-security")), "http://deb.debian.org/debian-security"
    )
    return main, security


def pip_conf() -> str:
    """An /etc/pip.conf for the images: their certificates and this machine's index, never credentials."""
    settings = _pip_settings()
    lines = ["[global]", f"cert = {IMAGE_CA_BUNDLE}"]
    for key in _PIP_CARRIED:
        values = [value for value in settings.get(key, "").split() if not has_credentials(value)]
        if values:
            lines.append(f"{key} = {' '.join(values)}")
    return "\n".join(lines) + "\n"


def proxies() -> list[str]:
    """The proxy variables that are set here: docker passes them on to a build without keeping them."""
    return [name for name in _PROXIES if os.environ.get(name)]


def _certificates(path: Path) -> list[str]:
    return _PEM.findall(path.read_text(encoding="utf-8", errors="ignore")) if path.is_file() else []


def _apt_uris() -> Iterator[str]:
    """The URIs of apt's sources, of both formats."""
    for path in (_APT / "sources.list", *sorted(_APT.glob("sources.list.d/*"))):
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        pattern = r"^URIs:(.+)$" if path.suffix == ".sources" else r"^deb\s+(?:\[[^]]*\]\s+)?(\S+)"
        for match in re.findall(pattern, text, re.MULTILINE):
            yield from (uri.rstrip("/") for uri in match.split())


def _pip_settings() -> dict[str, str]:
    """pip's settings in its own order: system file, user file, PIP_CONFIG_FILE, variables."""
    parser = configparser.ConfigParser(interpolation=None)
    files = [*_PIP_FILES, os.environ.get("PIP_CONFIG_FILE", "")]
    parser.read([os.path.expanduser(file) for file in files if file], encoding="utf-8")
    settings = dict(parser["global"]) if parser.has_section("global") else {}
    for key in ("cert", *_PIP_CARRIED):
        variable = "PIP_DEFAULT_TIMEOUT" if key == "timeout" else f"PIP_{key.upper().replace('-', '_')}"
        if os.environ.get(variable):
            settings[key] = os.environ[variable]
    return settings
