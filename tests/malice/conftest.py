"""The machines and images of other test folders, for tests in which somebody else is at work too."""

from tests.gpu.conftest import nvml, room
from tests.hook.conftest import hooked, machine
from tests.readonly.conftest import one_environment, one_image

__all__ = ["hooked", "machine", "nvml", "one_environment", "one_image", "room"]
