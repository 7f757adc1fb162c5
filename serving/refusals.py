"""Refusals: what a request is answered with if it gets no answer. They say nothing of this machine."""

from __future__ import annotations

from collections.abc import Mapping

from preprocess.images.decode import ImageErrorReason

# Whether the fault is the file's kind (415), its content (422), or its size.
_STATUS_OF_REASON: dict[ImageErrorReason, int] = {
    "empty_file": 400,
    "not_an_image": 415,
    "unsupported_format": 415,
    "unsupported_mode": 415,
    "too_many_pixels": 413,
    "out_of_memory": 413,
}


class RefusedError(Exception):
    """A request gets no answer.

    Attributes:
      status: the status of HTTP.
      message: one line for a person.
      reason: one word for programs, or None.
      headers: further headers of the response.
    """

    def __init__(
        self, status: int, message: str, *, reason: str | None = None, headers: Mapping[str, str] | None = None
    ):
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.reason = reason
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, str]:
        """The body of the response as JSON; `error` as in TensorFlow Serving."""
        return {"error": self.message, **({"reason": self.reason} if self.reason else {})}


def refused_image(error: str) -> RefusedError:
    """The refusal of a file that is no usable image.

    Args:
      error: `reason: message`, as in `trainer.export.classifier.Prediction`.
    """
    reason, _, message = error.partition(": ")
    status = _STATUS_OF_REASON.get(reason, 422)  # type: ignore[call-overload]
    return RefusedError(status, message, reason=reason)


def busy(seconds: int) -> RefusedError:
    """The refusal of a request for which the server has no room now."""
    return RefusedError(
        429,
        f"The server has as many images as it takes at once. Try again in {seconds} s.",
        reason="queue_full",
        headers={"Retry-After": str(seconds)},
    )
