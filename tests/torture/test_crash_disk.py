"""Each image of the power cuts is mounted as it is, whoever else looks at the loop devices."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.torture import crash_disk
from tests.torture.crash_disk import mounted

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not os.path.exists("/dev/loop-control"), reason="needs loop devices"),
    pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="needs mkfs.ext4"),
]


def image_with(folder: Path, name: str) -> bytes:
    """A file system with one file of that name."""
    content = folder / f"content-{name}"
    content.mkdir()
    (content / name).touch()
    image = folder / f"{name}.img"
    image.write_bytes(bytes(1 << 20))
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", str(content), str(image)], check=True, timeout=20)
    return image.read_bytes()


def device_of(where: Path) -> str:
    lines = Path("/proc/mounts").read_text().splitlines()
    return next(line.split()[0] for line in lines if line.split()[1] == str(where))


@contextmanager
def somebody_looks_at(device: str) -> Generator[None]:
    """What a monitor, udev or another container does: the device stays in use after the unmount."""
    fd = os.open(device, os.O_RDONLY)
    try:
        yield
    finally:
        os.close(fd)


def test_an_image_is_read_although_somebody_holds_the_device_of_the_one_before(tmp_path: Path) -> None:
    first, second = image_with(tmp_path, "first"), image_with(tmp_path, "second")
    image, where = tmp_path / "cut.img", tmp_path / "cut"
    image.write_bytes(first)
    with mounted(image, where):
        assert (where / "first").exists()
        held = somebody_looks_at(device_of(where))
        held.__enter__()
    try:
        image.write_bytes(second)
        with mounted(image, where):
            assert (where / "second").exists()
            assert not (where / "first").exists()
    finally:
        held.__exit__(None, None, None)


def test_a_device_that_shows_another_image_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, where = tmp_path / "cut.img", tmp_path / "cut"
    image.write_bytes(image_with(tmp_path, "first"))
    monkeypatch.setattr(crash_disk, "_content", lambda device, size: bytes(size))
    with pytest.raises(crash_disk.HarnessError, match="another image"), mounted(image, where):
        pass
    assert str(where) not in Path("/proc/mounts").read_text()


def test_no_device_is_left(tmp_path: Path) -> None:
    image, where = tmp_path / "cut.img", tmp_path / "cut"
    image.write_bytes(image_with(tmp_path, "first"))
    with mounted(image, where):
        device = device_of(where)
    backing = Path("/sys/block") / Path(device).name / "loop" / "backing_file"
    assert not backing.exists() or str(tmp_path) not in backing.read_text()
