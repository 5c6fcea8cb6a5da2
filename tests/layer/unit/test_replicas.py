"""What a node has of generations: the newest copy, and none where there is nothing to copy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sif_writable.layer import make, replicas
from tests.layer.node import Node

if TYPE_CHECKING:
    from pathlib import Path


def test_the_newest_copy_is_that_of_the_highest_number_and_of_this_origin(tmp_path: Path) -> None:
    place = str(tmp_path)
    assert replicas.newest_replica(place, "id-a") == ""
    for number in (9, 10):
        (tmp_path / make.replica("id-a", number)).mkdir()
    (tmp_path / make.replica("id-b", 11)).mkdir()
    (tmp_path / f"{make.replica('id-a', 1)}x").mkdir()
    (tmp_path / make.replica("id-a", 12)).symlink_to("gone")  # to a generation in storage that is no longer there
    assert replicas.newest_replica(place, "id-a") == f"{place}/{make.replica('id-a', 10)}"


def test_a_copy_takes_the_place_of_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    node = Node(tmp_path)
    assert replicas.replicate(f"{tmp_path}/nothing", node.place) == ("", "")
    assert replicas.replicate(node.storage, node.place) == ("", "")
    assert replicas.mark(f"{tmp_path}/no/such/folder") == ""
    origin = replicas.mark(node.storage)
    assert origin.startswith("id-")
    node.write(layer := node.layer(origin=origin[3:]), "cache/x", "kept")
    node.publish(layer)
    target = f"{node.place}/{make.replica(origin, 1)}"
    os.symlink(f"{tmp_path}/gone", target)
    assert replicas.replicate(node.storage, node.place) == (target, "")
    assert not os.path.islink(target)
    assert os.listdir(node.place).count(os.path.basename(target)) == 1
