"""Feature stores to and from other formats: HDF5, NumPy files, webdataset tars."""

from .choice import ArrayImport
from .export import FORMATS, plan_export, run_export
from .generic import import_arrays
from .own import import_export, is_export

__all__ = ["FORMATS", "ArrayImport", "import_arrays", "import_export", "is_export", "plan_export", "run_export"]
