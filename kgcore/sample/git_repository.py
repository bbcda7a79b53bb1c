"""Ask git: is this a repository, what is its history, how large are its blobs."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from kgcore.errors import SourceError
from kgcore.sample.git_log import LOG_ARGUMENTS, Commit, read_commits, text

# Set while git runs a hook: they would lead it to another repository than the one that was named.
_STEERING = frozenset(
    (
        *("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"),
        *("GIT_NAMESPACE", "GIT_PREFIX", "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS"),
    )
)
# Hashes of 41 or 65 bytes: a request and its answer fit into a pipe; with more, both could block.
_ASKED_AT_ONCE = 400


class Repository:
    """A git repository with at least one commit. Raises :class:`SourceError` if it is not one."""

    def __init__(self, path: Path) -> None:
        git = shutil.which("git")
        if git is None:
            raise SourceError("git is not on PATH", "install git, or make a synthetic graph")
        self.path = path
        self._command = (git, "-C", os.fspath(path))
        self._environment = {k: v for k, v in os.environ.items() if k not in _STEERING}
        self._environment |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
        found = self._run("rev-parse", "--git-dir")
        if found.returncode:
            raise SourceError(
                f"{path} is not a git repository: {_last_line(found.stderr)}",
                "name a directory with a git history, made by git init or git clone",
            )
        if self._run("rev-parse", "--verify", "--quiet", "HEAD^{commit}").returncode:
            raise SourceError(
                f"the repository {path} has no commit on its current branch",
                "commit something, or check out a branch that has commits",
            )

    def count(self) -> int:
        """Return the number of commits that :meth:`commits` gives."""
        counted = self._run("rev-list", "--count", "HEAD", "--")
        if counted.returncode:
            raise self._failed(counted.stderr)
        return int(counted.stdout)

    def commits(self) -> Generator[Commit, None, None]:
        """Yield the commits that lead to HEAD, parents first. Close it to stop before the end."""
        with (
            tempfile.TemporaryFile() as complaints,
            subprocess.Popen(
                (*self._command, *LOG_ARGUMENTS),
                stdout=subprocess.PIPE,
                stderr=complaints,
                stdin=subprocess.DEVNULL,
                env=self._environment,
            ) as process,
        ):
            try:
                yield from read_commits(_pipe(process.stdout))
            except GeneratorExit:
                process.kill()
                raise
            if process.wait():
                complaints.seek(0)
                raise self._failed(complaints.read())

    @contextmanager
    def blob_sizes(self) -> Iterator["BlobSizes"]:
        """Start the process that answers for the sizes of blobs, and end it afterwards."""
        with subprocess.Popen(
            (*self._command, "cat-file", "--batch-check=%(objectname) %(objectsize)"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
        ) as process:
            try:
                yield BlobSizes(_pipe(process.stdin), _pipe(process.stdout))
            except BaseException:
                process.kill()
                raise

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            (*self._command, *arguments),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=self._environment,
            check=False,
        )

    def _failed(self, complaints: bytes) -> SourceError:
        return SourceError(
            f"git can't read the history of {self.path}: {_last_line(complaints)}",
            "git fsck tells what is damaged or missing",
        )


class BlobSizes:
    """Asks one ``git cat-file`` process for the sizes of blobs."""

    def __init__(self, questions: IO[bytes], answers: IO[bytes]) -> None:
        self._questions = questions
        self._answers = answers

    def of(self, blobs: Sequence[str]) -> list[int | None]:
        """Return sizes in bytes; None where the blob is not here."""
        sizes: list[int | None] = []
        for start in range(0, len(blobs), _ASKED_AT_ONCE):
            asked = blobs[start : start + _ASKED_AT_ONCE]
            try:
                self._questions.write("".join(f"{blob}\n" for blob in asked).encode())
                self._questions.flush()
            except BrokenPipeError:
                raise SourceError("git cat-file ended early", "try git fsck") from None
            for _ in asked:
                size = self._answers.readline().split()[-1:]
                sizes.append(int(size[0]) if size and size[0].isdigit() else None)
        return sizes


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise TypeError("a process was started without the pipe it is asked for")
    return stream


def _last_line(complaints: bytes) -> str:
    return (text(complaints).strip().splitlines() or ["it gave no reason"])[-1]
