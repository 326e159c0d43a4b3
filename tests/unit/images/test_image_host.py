"""What an image takes over from the host, and what it must not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from airgap.images import host


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host of our own making: no pip settings, no apt sources, no certificates but those a test adds."""
    for name in (
        "PIP_CERT",
        "PIP_INDEX_URL",
        "PIP_EXTRA_INDEX_URL",
        "PIP_TRUSTED_HOST",
        "PIP_DEFAULT_TIMEOUT",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setattr(host, "_PIP_FILES", ())
    monkeypatch.setattr(host, "_SYSTEM_BUNDLES", ())
    monkeypatch.setattr(host, "_APT", tmp_path / "apt")
    (tmp_path / "apt/sources.list.d").mkdir(parents=True)
    return tmp_path


def test_pip_conf_carries_the_index_but_no_credentials(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine / "pip.conf").write_text(
        "[global]\nindex-url = https://me:hunter2@private.example/simple\n"
        "extra-index-url =\n    https://mirror.example/simple\n    https://key@other.example/simple\n"
        "find-links = /opt/wheels\ncert = /host/only.pem\n"
    )
    expected = f"[global]\ncert = {host.IMAGE_CA_BUNDLE}\nextra-index-url = https://mirror.example/simple\n"
    assert host.pip_conf() == expected

    monkeypatch.setenv("PIP_INDEX_URL", "https://pypi.example/100%25/simple")
    assert "index-url = https://pypi.example/100%25/simple\n" in host.pip_conf()


def test_debian_mirrors_are_the_hosts_without_credentials(machine: Path) -> None:
    default = ("http://deb.debian.org/debian", "http://deb.debian.org/debian-security")
    assert host.debian_mirrors() == default

    (machine / "apt/sources.list").write_text(
        "# deb http://commented.example/debian bookworm main\n"
        "deb https://user:word@secret.example/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/k] https://one.example/debian/ bookworm main\n"
    )
    (machine / "apt/sources.list.d/more.sources").write_text(
        "Types: deb\nURIs: https://a.example/other https://two.example/debian-security\nSuites: bookworm-security\n"
    )
    assert host.debian_mirrors() == ("https://one.example/debian", "https://two.example/debian-security")


def test_only_certificates_debian_lacks_are_carried(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, key = machine / "own.pem", machine / "key.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=own"
    subprocess.run([*make.split(), "-keyout", str(key), "-out", str(own)], check=True, capture_output=True)
    packaged = next(Path("/usr/share/ca-certificates").rglob("*.crt"), None)
    bundle = machine / "bundle.crt"
    bundle.write_text(
        f"# a comment\n{own.read_text()}{packaged.read_text() if packaged else ''}{own.read_text()}"
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    assert host.ca_certificates() == [own.read_text().strip()]
