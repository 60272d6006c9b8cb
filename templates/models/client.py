"""ModelScope's own client, in a process that can be ended.

client.py ENDPOINT MODEL REVISION list
client.py ENDPOINT MODEL REVISION fetch DIRECTORY    [[workers, [[path, bytes, sha256], ...]], ...] on stdin
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

from modelscope_hub import HubApi
from modelscope_hub.errors import (
    AuthenticationError,
    FileIntegrityError,
    NotExistError,
    PermissionDeniedError,
)

REFUSALS = {
    NotExistError: "has no such model, revision or file",
    AuthenticationError: "lets nobody in without the right token",
    PermissionDeniedError: "lets nobody in without the right token",
}


def main(endpoint, model, revision, verb, *rest):
    hub = HubApi(endpoint=endpoint)
    if verb == "list":
        found = hub.list_repo_files(model, "model", revision=revision)
        files = {
            file.path: {"size": file.size, "sha256": file.sha256} for file in found if file.type != "tree"
        }
        print(json.dumps(files))
        return
    (directory,) = rest
    batches = json.load(sys.stdin)

    def one(file):
        path, size, sha256 = file
        hub.download_file(
            model,
            "model",
            path,
            revision=revision,
            local_dir=directory,
            expected_sha256=sha256 or None,
            file_size=size,
        )

    failed = []
    for workers, files in batches:
        with ThreadPoolExecutor(workers) as pool:  # what fails does not stop the rest
            failed += [error for error in pool.map(lambda file: attempt(one, file), files) if error]
    if failed:
        raise failed[0]


def attempt(action, file):
    try:
        action(file)
    except FileIntegrityError as error:
        print("wrong", file[0], flush=True)
        return error
    except Exception as error:
        return error
    print("done", file[0], flush=True)
    return None


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        refusal = next((text for kind, text in REFUSALS.items() if isinstance(error, kind)), None)
        text = " ".join(str(error).split())[:300]
        print(f"refused: {refusal}" if refusal else f"failed: {text}", file=sys.stderr)
        sys.exit(1)
