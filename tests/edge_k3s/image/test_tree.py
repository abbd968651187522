"""A layer's tar has one byte form."""

import io
import tarfile

from edge_k3s.image.tree import AT_S, Entry, File, Folder, Link, pack

LONG = "usr/" + "/".join(["a-folder-of-some-length"] * 10) + "/ü"


def test_folders_come_first_and_nothing_of_the_builder_is_in_it() -> None:
    tree: dict[str, Entry] = {
        "usr/bin/x": File(b"program", executable=True),
        "usr/bin-more": File(b""),
        "usr/lib": Link("elsewhere"),
        "var/data": Folder(0o750, 10001),
        LONG: File(b"far"),
    }
    data = pack(tree)
    assert data == pack(dict(reversed(tree.items())))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {member.name: member for member in archive}
        names = [member.name for member in archive]
        stream = archive.extractfile(LONG)
        assert stream is not None
        assert stream.read() == b"far"
    assert names[:4] == ["usr", "usr/a-folder-of-some-length", *names[2:4]]
    assert names.index("usr/bin") < names.index("usr/bin/x")
    assert {(member.mtime, member.uname, member.gname) for member in members.values()} == {(AT_S, "", "")}
    assert (members["usr/bin/x"].mode, members["usr/bin-more"].mode) == (0o755, 0o644)
    assert (members["var/data"].uid, members["var/data"].gid, members["var/data"].mode) == (10001, 10001, 0o750)
    assert members["usr/lib"].linkname == "elsewhere"
