"""Which checksum variant an endpoint speaks, where nobody has said so.

Each connection is of one variant. What becomes of its first request says whether that was the right one. This
module must never open or close anything.
"""

from __future__ import annotations

from trio_ipc.client.variants import means_other_variant
from trio_ipc.config import AUTO, Crc32Setting, Crc32Variant
from trio_ipc.errors import IpcError


class Variants:
    """What is known of one endpoint.

    Args:
        setting: the endpoint's ``crc32_variant``.

    Attributes:
        current: the variant of the next connection.
        is_known: whether it is the server's, by the setting or as it has answered.
    """

    def __init__(self, setting: Crc32Setting) -> None:
        self._is_auto = setting == AUTO
        self.current = Crc32Variant.IEEE if setting == AUTO else setting
        self.is_known = not self._is_auto
        self._has_tried_both = False

    def answered(self, variant: Crc32Variant) -> None:
        """Note that the server has answered in a variant."""
        if self._is_auto:
            self.current, self.is_known, self._has_tried_both = variant, True, False

    def doubt(self) -> None:
        """Note that it may be another server by now. What the former one spoke is still the first to try."""
        self.is_known, self._has_tried_both = not self._is_auto, False

    def tries_other(self, variant: Crc32Variant, exc: BaseException | None) -> bool:
        """Note what the first request on a connection ended by; return whether to try the other variant now.

        That is so once, until the server has answered or is lost: when both have failed, it is the server.

        Args:
            variant: the connection's.
            exc: what the request ended by.
        """
        if not isinstance(exc, IpcError) or not means_other_variant(exc, answered=False):
            return False
        if variant is not self.current:
            return True  # others have found out the same meanwhile
        if self.is_known:
            return False
        self.current = variant.other
        self._has_tried_both = not self._has_tried_both
        return self._has_tried_both
