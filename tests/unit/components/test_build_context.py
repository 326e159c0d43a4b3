"""What makes another image of a build context, and what does not."""

from __future__ import annotations

from pathlib import Path

from components.images import context_hash


def test_it_is_the_files_and_who_may_run_them_whatever_the_umask_was(tmp_path: Path) -> None:
    script = tmp_path / "entrypoint.sh"
    script.write_text("exec true\n")
    hashes = []
    for mode in (0o755, 0o700, 0o750, 0o644, 0o600):
        script.chmod(mode)
        hashes.append(context_hash(tmp_path))
    runnable, plain = hashes[:3], hashes[3:]
    assert len(set(runnable)) == len(set(plain)) == 1
    assert runnable[0] != plain[0]
    script.write_text("exec false\n")
    assert context_hash(tmp_path) not in hashes
