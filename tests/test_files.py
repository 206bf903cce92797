"""Files that users name: what can be read, and how written files appear."""

import errno
import hashlib
import os
import stat

import pytest

from charrnn_tf.errors import ConfigError
from charrnn_tf.files import appearing, open_file, sha256, size_of, write_file


def test_a_regular_file_is_opened_and_hashed(write):
    path = write(b"\0content\xff")
    with open_file(path) as file:
        assert file.read() == b"\0content\xff"
    assert sha256(path) == hashlib.sha256(b"\0content\xff").hexdigest()


def test_pipes_folders_devices_and_missing_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, number, message in [
        (tmp_path / "pipe", errno.EINVAL, "is a pipe, which can be read only once: give it as standard input"),
        (tmp_path, errno.EISDIR, "is a directory"),
        ("/dev/null", errno.EINVAL, "is a device, not a file with an end"),
        (tmp_path / "missing", errno.ENOENT, "No such file or directory"),
    ]:
        with pytest.raises(OSError, match=message) as caught:
            open_file(path)
        assert (caught.value.errno, str(caught.value.filename)) == (number, str(path))


def test_a_file_appears_once_it_is_complete(tmp_path):
    target = tmp_path / "file"
    write_file(target, b"old")
    with appearing(target) as place:
        place.write_bytes(b"new")
        assert target.read_bytes() == b"old"
        assert place.name.startswith(".")
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]
    assert size_of(tmp_path) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_failed_write_leaves_the_old_file(tmp_path, error):
    target = tmp_path / "file"
    write_file(target, b"old")

    def fail():
        with appearing(target) as place:
            place.write_bytes(b"half")
            raise error

    with pytest.raises(ConfigError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        fail()
    if isinstance(error, OSError):
        assert str(caught.value) == f"can't write {str(target)!r}: no space left on device"
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_can_not_be_written_as_a_file(tmp_path):
    with pytest.raises(ConfigError, match="is a directory"):
        write_file(tmp_path, b"content")


def test_devices_and_pipes_are_written_directly(tmp_path):
    write_file("/dev/null", b"content")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="can't write "):  # nobody reads it: an error, not a wait
        write_file(tmp_path / "pipe", b"content")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_file(tmp_path / "pipe", b"content")
        assert os.read(reader, 100) == b"content"
    finally:
        os.close(reader)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
