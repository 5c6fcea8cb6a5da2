"""What a layer is known for while programs are in it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from sif_writable.layer import make

if TYPE_CHECKING:
    from tests.layer.conftest import Box


def test_a_process_in_a_layer_knows_that_there_is_nothing_to_keep_of_it(box: Box) -> None:
    code = """
from sif_writable.layer import survey
assert enter() == ""
write(SITE + "/quiet/__init__.py", "# changed", "a")
asked = [survey.is_kept(entering.current.folder, in_it=True)]
write(SITE + "/new")
answer([*asked, survey.is_kept(entering.current.folder, in_it=True)])
"""
    result = box.run(code)
    assert result.stdout == "[true, false]\n", result


def test_nothing_that_is_in_use_goes(box: Box) -> None:
    show = """
from sif_writable.layer import survey
place = STORAGE + "/layer"
names = sorted(name for name in os.listdir(place) if survey.kind(name) in ("upper", "replica"))
used = {survey.kind(name): survey.in_use(place + "/" + name) for name in names}
refused = sorted({survey.remove(place + "/" + name) for name in names} - {""})
answer([used, refused, [name for name in names if not os.path.exists(place + "/" + name)]])
"""
    script = f"""
$P 'assert enter() == ""; write(SITE + "/first")'
$P 'assert enter() == ""; write(SITE + "/second"); write("ready")
while not os.path.exists("stop"): time.sleep(0.01)' &
while ! [ -e ready ]; do sleep 0.01; done
$P '{show}'
touch stop
wait
$P '{show}'
"""
    result = box.shell(script)
    (during, refused, gone), (after, none, all_of_it) = map(json.loads, result.stdout.splitlines())
    says = "is used by programs that run, and stays until they end"
    assert (during, refused, gone) == ({"replica": says, "upper": says}, [says], []), result
    assert after == {"replica": "", "upper": ""}
    assert none == []
    assert len(all_of_it) == 2
    assert set(map(os.path.basename, box.generation())) == {"first", "second"}
    assert make.newest_generation(box.place) == 2
