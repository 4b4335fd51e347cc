import os
import signal
import sys

import pytest

import workers
from hf_infomax import UsageError
from workers import Job, Workers

# Tells through a pipe that it runs, and waits to be interrupted.
PATIENT = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
open(sys.argv[1], "w").close()
print("interrupted" if signal.sigtimedwait([signal.SIGINT], 60) else "left alone")
"""
HASTY = """
import sys
open(sys.argv[1]).read()
sys.exit("error: no luck.")
"""


@pytest.fixture
def job(tmp_path):
    """A job that runs a line of Python."""
    return lambda name, code, *arguments: Job(
        name, [sys.executable, "-S", "-c", code, *map(str, arguments)], tmp_path / "logs" / f"{name}.txt"
    )


def test_all_jobs_run_each_with_its_share_of_the_cores(job, monkeypatch):
    monkeypatch.setattr(workers, "devices", list)
    monkeypatch.setattr(os, "cpu_count", lambda: 9)
    jobs = [job(str(number), "import os; print(os.environ['OMP_NUM_THREADS'])") for number in range(5)]
    assert {done.name for done in Workers(2).finished(jobs)} == set("01234")
    assert {each.log.read_text() for each in jobs} == {"4\n"}


def test_on_gpus_each_sees_one(monkeypatch):
    monkeypatch.setattr(workers.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [workers.environment(slot, 3)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["5", "7", "5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert workers.devices() == ["0", "1"]


def test_when_one_fails_the_others_are_interrupted_and_waited_for(job, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    patient, hasty = job("patient", PATIENT, tmp_path / "pipe"), job("hasty", HASTY, tmp_path / "pipe")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(UsageError, match=r"^hasty failed \(no luck\): see .*hasty.txt\.$"):
        list(Workers(2).finished([patient, hasty]))
    assert patient.log.read_text() == "interrupted\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_reader_that_stops_interrupts_what_runs_and_starts_nothing_more(job, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    patient, ready = (
        job("patient", PATIENT, tmp_path / "pipe"),
        job("ready", "import sys; open(sys.argv[1]).read()", tmp_path / "pipe"),
    )
    late = [job(f"late-{number}", PATIENT, os.devnull) for number in range(9)]
    finished = Workers(2).finished([patient, ready, *late])
    assert next(finished) is ready
    finished.close()
    assert patient.log.read_text() == "interrupted\n"
    assert not late[-1].log.exists()


def test_a_job_that_says_nothing(job):
    with pytest.raises(UsageError, match="it printed nothing"):
        list(Workers(1).finished([job("mute", "raise SystemExit(3)")]))
