"""The machines and images of other test folders, for tests in which somebody else is at work too."""

from tests.gpu.conftest import nvml, room
from tests.hook.conftest import hooked, machine, main_python
from tests.hook.test_budget import strace
from tests.readonly.conftest import one_environment, one_image

__all__ = ["hooked", "machine", "main_python", "nvml", "one_environment", "one_image", "room", "strace"]
