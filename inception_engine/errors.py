"""What can go wrong between a plan, an image and a run: one type per kind, one line of text each.

Errors of the C library have the number of their ``ie_status`` (runtime/include/inception_engine.h); those that
arise in Python have 0. Where a built-in type says the same, an error is one of that type too.
"""

from __future__ import annotations

from typing import ClassVar


class EngineError(Exception):
    """Base of all. ``status``: the ``ie_status`` of the C library, or 0."""

    status: ClassVar[int] = 0
    _by_status: ClassVar[dict[int, type[EngineError]]] = {}

    def __init_subclass__(cls, status: int = 0) -> None:
        cls.status = status
        if status:
            EngineError._by_status[status] = cls


def raise_for_status(status: int, message: str) -> None:
    """Raise the error of a status of the C library; nothing if it is ``IE_OK``."""
    if status:
        raise EngineError._by_status.get(status, EngineError)(message or f"status {status}")


class ArgumentError(EngineError, ValueError, status=1):
    """A value out of range."""


class BatchError(EngineError, ValueError, status=2):
    """The batch is 0, or larger than any program of the plan takes."""


class DeviceError(EngineError, ValueError, status=3):
    """An unknown device, or one that this machine or this process does not have."""


class NoProgramError(EngineError, status=4):
    """The plan holds no program that this machine can run."""


class FileError(EngineError, OSError, status=10):
    """The plan cannot be opened or read."""


class OutOfMemoryError(EngineError, MemoryError, status=11):
    """The library is out of memory, the machine's or the GPU's."""


class ThreadError(EngineError, RuntimeError, status=12):
    """A thread could not be started."""


class WaitTimeoutError(EngineError, TimeoutError, status=13):
    """A wait inside a run passed its bound; the results are void. On the CPU the engine must be made anew."""


class NoDriverError(EngineError, RuntimeError, status=14):
    """There is no CUDA driver on this machine."""


class DriverError(EngineError, RuntimeError, status=15):
    """The CUDA driver is too old, or refused a call."""


class UnsupportedGpuError(EngineError, RuntimeError, status=16):
    """The library has no kernels for this GPU."""


class KernelsError(EngineError, RuntimeError, status=17):
    """The kernel archive is missing, damaged or of another version than the library."""


class DeviceLostError(EngineError, RuntimeError, status=18):
    """The GPU failed. This process cannot use it any more, another one may."""


class PlanError(EngineError, ValueError):
    """The file is not a plan that can be run safely. Base of what the loader and its proof refuse."""


class PlanTruncated(PlanError, status=20):
    """Shorter than it says."""


class PlanForeign(PlanError, status=21):
    """Not a plan."""


class PlanVersion(PlanError, status=22):
    """Made by a newer version."""


class PlanHash(PlanError, status=23):
    """Changed since it was written."""


class PlanSections(PlanError, status=24):
    """Sections missing, overlapping or outside the file."""


class PlanLimit(PlanError, status=25):
    """More of something than the runtime accepts."""


class PlanTables(PlanError, status=26):
    """A program's tables do not fill its section."""


class PlanReserved(PlanError, status=27):
    """A reserved field is set."""


class PlanValue(PlanError, status=28):
    """A field has a value that does not exist."""


class PlanBuffer(PlanError, status=29):
    """A buffer is misaligned or leaves the arena."""


class PlanGeometry(PlanError, status=30):
    """An op's sizes do not fit each other or its buffers."""


class PlanBounds(PlanError, status=31):
    """An op would read or write outside its buffer."""


class PlanWeights(PlanError, status=32):
    """Weights misaligned or outside their section."""


class PlanAlignment(PlanError, status=33):
    """A divisibility that the target's kernels assume does not hold."""


class PlanTiles(PlanError, status=34):
    """The tasks of an op do not cut its output into its tiles, each once."""


class PlanOverlap(PlanError, status=35):
    """Two ops write the same elements."""


class PlanUnwritten(PlanError, status=36):
    """Something is read that nothing writes."""


class PlanLaunch(PlanError, status=37):
    """Launches do not cover the tasks in order, or an op lies in two."""


class PlanCounter(PlanError, status=38):
    """A wait's target is not the number of signals on its counter."""


class PlanOrder(PlanError, status=39):
    """A task waits for itself or for a later task: it might never end."""


class PlanMissingWait(PlanError, status=40):
    """A task reads a tile that it does not wait for."""


class PlanReuse(PlanError, status=41):
    """A task writes memory that an unfinished task may still use."""


class PlanWork(PlanError, status=42):
    """The program or its proof would take unreasonable work."""


class PlanMetadata(PlanError, status=43):
    """The description of the network (labels, preprocessing) is not one."""


class LibraryError(EngineError, RuntimeError):
    """The C library is missing, or is of another version than this package."""


class ClosedError(EngineError, RuntimeError):
    """The engine was closed, or belongs to another process."""


class BusyError(EngineError, RuntimeError):
    """The engine is in the middle of a run of this very thread, which a signal handler or a finaliser interrupted."""


class PackageError(EngineError, ImportError):
    """A package that this needs is not installed, or cannot be imported."""


class BackendError(EngineError, ValueError):
    """Another runtime cannot take this file, option or output, or failed at it."""


class InputTypeError(EngineError, TypeError):
    """Neither an array nor a tensor where the engine can read it, or of another dtype than float32 and uint8."""


class InputShapeError(EngineError, ValueError):
    """Another rank or shape than the plan's input."""


class OutputNameError(EngineError, ValueError):
    """The plan has no output of this name."""


class ImageError(EngineError):
    """An image file that cannot be used."""


class ImageUnreadable(ImageError, OSError):
    """It cannot be opened, or is not a file."""


class ImageForeign(ImageError, ValueError):
    """It is neither JPEG nor PNG."""


class ImageTooLarge(ImageError, ValueError):
    """It has more pixels than an image of any use: a decompression bomb."""


class ImageDamaged(ImageError, ValueError):
    """It begins like an image and cannot be decoded."""


class DatasetError(EngineError, ValueError):
    """What should hold labelled images does not: no classes, or classes without images."""


class LoaderError(EngineError, RuntimeError):
    """A process that prepares images for training died, or gave no answer."""


class CollectionError(EngineError, RuntimeError):
    """The folder of results is of another collection, or a machine could not classify its part of one."""
