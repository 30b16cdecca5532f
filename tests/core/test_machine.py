"""What the processor can do is read off the flags that the kernel lists."""

import pytest

from lightweight.core import machine


@pytest.mark.parametrize(
    ("flags", "saturated"),
    [
        ("fpu sse4_2 avx avx2", True),
        ("fpu avx2 avx512f", True),
        ("fpu avx2 avx512f avx512_vnni", False),
        ("fpu avx2 avx_vnni", False),
        ("fpu avx2 avx512f amx_int8", False),
        ("fp asimd asimddp i8mm", False),
        ("", False),
    ],
)
def test_sums_of_8_bit_products_saturate_on_x86_without_vnni(monkeypatch, flags, saturated):
    key = "Features" if "asimd" in flags else "flags"
    monkeypatch.setattr(machine, "_read_cpuinfo", lambda: {"model name": "A CPU", key: flags})
    assert machine.int8_saturates() == saturated
    assert set(machine.vector_extensions().split()) == set(flags.split()) & set(machine.EXTENSIONS)
