"""The probe: what it measures, the file it keeps, interpolation."""

import dataclasses
import json
import os
import warnings

import pytest
import torch

from gnnkern import hardware
from gnnkern.cli import main
from gnnkern.hardware import Machine, cached_probe, probe
from gnnkern.hardware.measuring import Measurement


@pytest.fixture
def forbid_measuring(monkeypatch):
    """Call it, and measuring fails from then on."""

    def fail(*arguments):
        pytest.fail("measured again")

    return lambda: monkeypatch.setattr(hardware, "_measure", fail)


def file_in(directory):
    (file,) = directory.iterdir()
    return file


def test_every_number_is_plain_and_positive(tiny):
    machine = probe(effort=tiny)
    assert (machine.device, machine.threads) == ("cpu", 2)
    assert machine.cores >= 1 and machine.memory_bytes > 1 << 20
    assert machine.vector_bits in (128, 256, 512)
    assert list(machine.copy_bytes_per_s) == [1 << 18, 1 << 20]
    assert {row: list(rates) for row, rates in machine.gather_bytes_per_s.items()} == {
        64: [1 << 18, 1 << 20],
        256: [1 << 18, 1 << 20],
    }
    assert set(machine.matmul_flops_per_s) == {"float32", "bfloat16"}
    numbers = [
        *machine.copy_bytes_per_s.values(),
        *(rate for rates in machine.gather_bytes_per_s.values() for rate in rates.values()),
        *machine.matmul_flops_per_s.values(),
        *(machine.op_call_s, machine.torch_call_s, machine.measured_s),
    ]
    assert all(type(number) is float and number > 0 for number in numbers)


@pytest.mark.parametrize(
    "rates, kept",
    [
        # The smaller of two is disturbed once, for good, not by much, and not at all.
        ([2.0, 8.0, 9.0], 9.0),
        ([2.0, 8.0, 3.0, 1.0, 2.5], 3.0),
        ([7.0, 8.0], 7.0),
        ([9.0, 8.0], 9.0),
    ],
)
def test_a_size_that_a_larger_one_beats_is_measured_again(tiny, rates, kept):
    measurement = Measurement(torch.device("cpu"), 1 << 33, tiny, None)
    left = iter(rates)
    assert measurement._by_size("{}", lambda size: next(left)) == {1 << 18: kept, 1 << 20: 8.0}
    assert list(left) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_measured(tiny):
    machine = probe("cuda", effort=tiny)
    assert machine.device == "cuda" and machine.isa.startswith("sm_")
    assert machine.copy_bandwidth() > 0 and machine.gather_bandwidth(256, 1 << 20) > 0


def test_progress_goes_from_none_to_all(tiny):
    seen = []
    probe(effort=tiny, progress=lambda *step: seen.append(step))
    total = seen[0][1]
    assert [done for done, _, _ in seen] == list(range(total + 1))
    assert {steps for _, steps, _ in seen} == {total}
    assert seen[-1][2] == "done"


def test_kept_and_read_again(tiny, tmp_path, forbid_measuring):
    measured = probe(effort=tiny, directory=tmp_path)
    forbid_measuring()
    assert cached_probe(effort=tiny, directory=tmp_path) == measured
    assert probe(effort=tiny, directory=tmp_path) == measured
    assert [file.suffix for file in tmp_path.iterdir()] == [".json"]


def test_refresh_measures_again(tiny, tmp_path):
    first = probe(effort=tiny, directory=tmp_path)
    second = probe(effort=tiny, directory=tmp_path, refresh=True)
    assert second != first
    assert cached_probe(effort=tiny, directory=tmp_path) == second


def test_the_default_directory_follows_the_environment(tiny, tmp_path):
    probe(effort=tiny)
    assert file_in(tmp_path / "cache" / "gnnkern").name.startswith("probe-cpu-")


def test_another_number_of_threads_is_another_machine(tiny, tmp_path):
    probe(effort=tiny, directory=tmp_path)
    torch.set_num_threads(1)
    assert cached_probe(effort=tiny, directory=tmp_path) is None


def test_another_effort_is_another_measurement(tiny, tmp_path, forbid_measuring):
    forbid_measuring()
    assert cached_probe(effort=tiny, directory=tmp_path) is None
    assert cached_probe(directory=tmp_path) is None


def spoil_text(text):
    return text[: len(text) // 2]


def spoil_field(text):
    values = json.loads(text)
    del values["machine"]["op_call_s"]
    return json.dumps(values)


def spoil_number(text):
    values = json.loads(text)
    values["machine"]["op_call_s"] = -1
    return json.dumps(values)


def spoil_curve(text):
    values = json.loads(text)
    values["machine"]["copy_bytes_per_s"] = {"many": 1.0}
    return json.dumps(values)


def spoil_format(text):
    values = json.loads(text)
    values["identity"]["format"] = 0
    return json.dumps(values)


def spoil_shape(text):
    return "[]"


@pytest.mark.parametrize(
    "spoil", [spoil_text, spoil_field, spoil_number, spoil_curve, spoil_format, spoil_shape]
)
def test_a_file_that_cannot_be_used_is_measured_again(spoil, tiny, tmp_path):
    probe(effort=tiny, directory=tmp_path)
    file = file_in(tmp_path)
    file.write_text(spoil(file.read_text()))
    assert cached_probe(effort=tiny, directory=tmp_path) is None
    measured = probe(effort=tiny, directory=tmp_path)
    assert cached_probe(effort=tiny, directory=tmp_path) == measured


def test_a_directory_that_cannot_be_written_gives_one_warning(tiny, tmp_path, forbid_measuring):
    # A file where the directory should be: also root cannot write there.
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.warns(UserWarning, match="the probe cannot be kept in .*file"):
        measured = probe(effort=tiny, directory=blocked)
    forbid_measuring()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert probe(effort=tiny, directory=blocked) == measured


def test_a_write_that_fails_leaves_nothing_behind(tiny, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.warns(UserWarning, match="disk full"):
        probe(effort=tiny, directory=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("device", "error", "message"),
    [
        (3, TypeError, "probe: device must be a torch.device or its name, got 3"),
        ("toaster", ValueError, "probe: device must be a CPU or a CUDA device, got 'toaster'"),
        ("meta", ValueError, "probe: device must be a CPU or a CUDA device, got 'meta'"),
        ("cuda:99", ValueError, "probe: device 'cuda:99' is not there: "),
    ],
)
def test_rejects(device, error, message):
    with pytest.raises(error, match=message):
        probe(device)


# -- the machine -----------------------------------------------------------------------------------


def test_interpolation_goes_through_the_points_and_between_them(machine):
    assert machine.copy_bandwidth() == 1e10
    assert machine.copy_bandwidth(1) == 1e11
    assert machine.gather_bandwidth(64, 1 << 20) == pytest.approx(4e10)
    # Halfway in the logarithm of the table, and of the row: geometric means.
    assert machine.gather_bandwidth(64, 1 << 24) == pytest.approx((4e10 * 1e9) ** 0.5)
    assert machine.gather_bandwidth(128, 1 << 28) == pytest.approx((1e9 * 4e9) ** 0.5)
    # Beyond the ends the nearest counts; a row of half a line takes the time of a line.
    assert machine.gather_bandwidth(4096, 1 << 40) == 4e9
    assert machine.gather_bandwidth(32, 1 << 28) == pytest.approx(5e8)


def test_the_smallest_cache_that_holds(machine):
    assert machine.cache_holding(1000) == "L1d"
    assert machine.cache_holding(1 << 20) == "L2"
    assert machine.cache_holding((1 << 20) + 1) is None


def test_through_json_and_back(machine):
    assert Machine.from_dict(json.loads(json.dumps(machine.to_dict()))) == machine


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Machine)])
def test_a_missing_field_is_an_error(machine, name):
    values = machine.to_dict()
    del values[name]
    with pytest.raises(ValueError, match="Machine: "):
        Machine.from_dict(values)


# -- the command line ------------------------------------------------------------------------------


def test_the_command_prints_a_table_and_info_shows_it(capsys, monkeypatch, machine):
    asked = []
    monkeypatch.setattr(hardware, "_measure", lambda *given: asked.append(given) or machine)
    assert main(["info"]) == 0
    assert "not measured yet" in capsys.readouterr().out
    assert not asked
    assert main(["probe"]) == 0
    out = capsys.readouterr().out
    for word in ("Made Up", "GB/s", "copy", "random rows of 256 B", "Gflop/s", "small calls"):
        assert word in out
    assert len(asked) == 1
    assert main(["probe", "--json"]) == 0
    assert Machine.from_dict(json.loads(capsys.readouterr().out)) == machine
    assert main(["info"]) == 0
    assert "copies 10.0 GB/s" in capsys.readouterr().out
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert Machine.from_dict(facts["probe"]["cpu"]) == machine
    assert len(asked) == 1
