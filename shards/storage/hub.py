"""Uploads to a repository of the Hugging Face Hub, many files in one commit.

fsspec's filesystem of the hub makes one commit for each file. The hub refuses more than 128 commits an hour, and
recommends fewer than 100 files in a commit (https://huggingface.co/docs/hub/repositories-recommendations).

Not covered: a `.gitignore` in the repository that excludes a file. The commit is then refused here, after the fact.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

FILES_PER_COMMIT = 50
IN_COMMIT_BYTES = 10_000_000
"""The hub may take smaller files as part of the commit, so they are kept in memory until then."""


class HubCommits:
    """Files that are sent now and appear in the repository with the next commit."""

    def __init__(self, filesystem: Any, base: str) -> None:
        """Find the repository.

        Args:
            filesystem: An `HfFileSystem`.
            base: Folder in it, as datasets/owner/name/folder.

        Raises:
            FileNotFoundError: There is no such repository or revision, or no access to it.
        """
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()  # the caller shows progress
        place = filesystem.resolve_path(base)
        self._api = filesystem._api
        self._folder = place.path_in_repo.rstrip("/")
        self._where = {"repo_id": place.repo_id, "repo_type": place.repo_type, "revision": place.revision}
        self._sent: dict[str, Any] = {}

    @property
    def is_full(self) -> bool:
        """Whether the files are enough for a commit."""
        return len(self._sent) >= FILES_PER_COMMIT

    def send(self, path: Path, name: str) -> None:
        """Send the content of a file, which may be deleted afterwards.

        Args:
            path: The file.
            name: Its name in the folder.
        """
        from huggingface_hub import CommitOperationAdd

        content = path.read_bytes() if path.stat().st_size < IN_COMMIT_BYTES else path
        target = f"{self._folder}/{name}".lstrip("/")
        file = CommitOperationAdd(path_in_repo=target, path_or_fileobj=content)
        self._api.preupload_lfs_files(additions=[file], **self._where)
        self._sent[target] = file

    def commit(self) -> None:
        """Let the files that were sent appear, all at once.

        Raises:
            FileNotFoundError: The hub made the commit without one of them.
        """
        if not self._sent:
            return
        message = f"Add {len(self._sent)} files"
        self._api.create_commit(operations=list(self._sent.values()), commit_message=message, **self._where)
        there = {file.path for file in self._api.get_paths_info(paths=list(self._sent), **self._where)}
        if lost := sorted(set(self._sent) - there):
            raise FileNotFoundError(f"{lost[0]}: found no such file after the commit; is it in .gitignore?")
        self._sent = {}
