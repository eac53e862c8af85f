import pytest

from bmla.store.errors import UsageError
from bmla.store.reading.device import pick_device

torch = pytest.importorskip("torch")


def test_a_device_by_its_name() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match='device "gpu": expected cpu or cuda:N'):
        pick_device("gpu")
    count = torch.cuda.device_count()
    with pytest.raises(UsageError, match=f'device "cuda:99": torch finds {count} GPUs on this machine'):
        pick_device("cuda:99")
