from __future__ import annotations

import pytest
import torch
from paper_toolbox.errors import NeedError
from paper_toolbox.kit import memory, vector
from paper_toolbox.kit.memory import afford


def test_norms_and_products_are_those_of_one_long_vector() -> None:
    random = torch.Generator().manual_seed(0)
    a, b = ([torch.randn(s, generator=random).double() for s in ((3,), (), (2, 4), (0,))] for _ in range(2))
    b[2] = b[2].t().contiguous().t()
    one, two = vector.joined(a), vector.joined(b)
    torch.testing.assert_close(vector.norm(a), one.norm())
    torch.testing.assert_close(vector.inner(a, b), one @ two)
    assert [x.shape for x in vector.parted(one, a)] == [x.shape for x in a]
    assert all(map(torch.equal, vector.parted(one, a), a))
    assert vector.norm([]) == vector.inner([], []) == 0.0


def test_halves_are_widened() -> None:
    large = [torch.full((4,), 6e4, dtype=torch.float16), torch.ones(1)]
    assert vector.norm(large).dtype == vector.inner(large, large).dtype == torch.float32
    torch.testing.assert_close(vector.norm(large).item(), (4 * 6e4**2 + 1) ** 0.5, rtol=1e-3, atol=0)
    assert vector.norm([torch.ones(1), torch.ones(1).double()]).dtype == torch.float64
    tiny = torch.zeros(2, dtype=torch.float16)
    vector.add([tiny], [torch.full((2,), 3e-5, dtype=torch.float16)], torch.tensor(1e5))  # beyond float16
    torch.testing.assert_close(tiny, torch.full((2,), 3.0, dtype=torch.float16), rtol=1e-2, atol=0)


def test_tensors_move_by_a_number_on_their_device() -> None:
    x, y = torch.ones(3, 2), torch.arange(6.0).view(3, 2)
    vector.add([x, x], [y, y], torch.tensor(0.5).double())
    torch.testing.assert_close(x, 1 + y)


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5_999, 10_000))
    there = torch.device("cuda")
    afford("cbo.particles", 9, 600, there, beside=599)
    with pytest.raises(NeedError, match=r"cbo.particles = 10: needs 6100 bytes on cuda, where 5999 .* at most 9 fit"):
        afford("cbo.particles", 10, 600, there, beside=100)
    with pytest.raises(NeedError, match="at most 0 fit"):
        afford("cbo.particles", 10, 600, there, beside=7000)
    assert memory.psutil.virtual_memory().available > 0
