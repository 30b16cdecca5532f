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


def test_the_frequency_is_that_of_the_fastest_core_and_unknown_where_the_kernel_does_not_tell_it(monkeypatch, tmp_path):
    text = "processor : 0\ncpu MHz\t\t: 1500.250\n\nprocessor : 1\ncpu MHz\t\t: 2445.432\n"
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "CPUINFO", cpuinfo)
    monkeypatch.setattr(machine, "CPUS", tmp_path / "cpus")
    assert machine.cpu_frequency() is None
    cpuinfo.write_text(text)
    assert machine.cpu_frequency() == 2445.432
    cpuinfo.write_text("processor : 0\n")
    assert machine.cpu_frequency() is None
    for number, khz in enumerate((800_000, 3_400_500)):
        folder = tmp_path / f"cpus/cpu{number}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{khz}\n")
    assert machine.cpu_frequency() == 3400.5
