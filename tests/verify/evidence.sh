# Read-only. Prints what the checks look at, in blocks that begin with "@@kind subject".
# POSIX sh, coreutils, findutils, util-linux, iproute2 and systemd. Needs root. The calls are appended.
LC_ALL=C; export LC_ALL
user=@USER@
# the API key, where there is one, comes on standard input: an argument would be in the lists that are searched
IFS= read -r key || key=
exec </dev/null

block() { printf '\n@@%s\n' "$*"; }

# What is imported or run from the environment has the service user's rights, not root's, and writes nothing.
unprivileged() {
    setpriv --reuid "$(id -u "$user")" --regid "$(id -g "$user")" --init-groups -- "$@"
}
in_clean_environment() {
    unprivileged env -i PATH=/usr/bin:/bin HOME=/nonexistent CONDARC=/dev/null PYTHONDONTWRITEBYTECODE=1 \
        CUDA_CACHE_DISABLE=1 "$@"
}

host() {
    block user; getent passwd "$user"
    block groups; id -nG "$user" 2>/dev/null
    block password; passwd --status "$user" 2>/dev/null | cut -d ' ' -f 2
    block listening; ss -Hltnp
    block clock; date +%s
    # processes that are ours by their user or by their program
    block ours
    { grep -l -E "^Uid:[[:space:]]+$(id -u "$user" 2>/dev/null || echo none)[[:space:]]" /proc/[0-9]*/status
      find /proc/[0-9]*/exe -lname '/opt/bringup/*'
    } 2>/dev/null | cut -d / -f 3 | sort -u | while read -r pid; do
        echo "$pid $(cat "/proc/$pid/comm" 2>/dev/null) $(tail -n 1 "/proc/$pid/cgroup" 2>/dev/null)"
    done
    block gpu_memory
    if command -v nvidia-smi >/dev/null; then
        timeout 30 nvidia-smi --query-compute-apps=pid,used_memory --format=csv,noheader,nounits 2>/dev/null
    fi
    block certificates
    for file in /etc/bringup/gateway/*certificate.pem; do
        [ -f "$file" ] || continue
        ends=$(openssl x509 -in "$file" -noout -enddate 2>/dev/null | cut -d = -f 2)
        openssl x509 -in "$file" -noout -checkend 0 >/dev/null 2>&1 && valid=yes || valid=no
        echo "$valid $file ${ends:-unreadable}"
    done
    block open_secrets
    find /etc/bringup/gateway @CREDENTIALS@ -type f ! -name '*certificate.pem' -perm /027 \
        -printf '%p is %u:%g %m\n' 2>/dev/null
    if [ -f @STAMP@ ]; then block stamp; sed 's/^/|/' @STAMP@; fi
    find /etc/systemd/system/vllm-*.service /etc/systemd/system/ollama-*.service \
        /etc/systemd/system/bringup-*.service /opt/bringup/bin /etc/bringup \
        -type f -perm -044 -size -64k ! -name 'requirements-*' 2>/dev/null |
        while read -r file; do block text "$file"; sed 's/^/|/' "$file"; done
}

gone() { # PATH...: what of these is still there
    block left
    for path in "$@"; do if [ -e "$path" ]; then echo "$path"; fi; done
}

environment() { # CONDA_PREFIX PREFIX LOCK_FILE CHECK MODULES ARGUMENT...: one process, which imports torch once
    conda=$1; prefix=$2; lock=$3; shift 3
    block conda_environments; in_clean_environment "$conda/bin/conda" env list --json 2>&1
    block lock; grep -E '^[A-Za-z0-9]' "$lock" 2>/dev/null
    block imports
    in_clean_environment PYTHONPYCACHEPREFIX=@BYTECODE@ timeout 600 "$prefix/bin/python" -c '
import importlib, json, os, runpy, sys
_, check, modules, *arguments = sys.argv
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
print(json.dumps(["python", "%d.%d.%d" % sys.version_info[:3]]))
for name in modules.split():
    try:
        found = str(getattr(importlib.import_module(name), "__version__", ""))
    except BaseException as error:
        found = "does not import: %s: %s" % (type(error).__name__, error)
    print(json.dumps([name, found]))
if arguments:
    print("\n@@torch", flush=True)
    os.dup2(1, 2)
    sys.argv = [check, *arguments]
    runpy.run_path(check, run_name="__main__")
' "$@" 2>/dev/null
    status=$?
    block python; echo "$status"
}

model() { # DIRECTORY
    block model "$1"; find "$1" -printf '%y %m %U %s %P\n' 2>/dev/null
    block hashes "$1"
    # several at a time: one alone is slower than a good disk
    if cd "$1" 2>/dev/null; then
        find . -type f ! -path ./@MANIFEST@ -print0 | nice xargs -0 -r -n 1 -P 4 sha256sum
        cd /
    fi
}

generate() { # ENGINE PREFIX DIRECTORY OPTIONS NAME=VALUE...
    engine=$1; prefix=$2; directory=$3; options=$4; shift 4
    block generated "$engine" "$directory"
    # without a network, with a /tmp of its own, first to end where memory runs out
    systemd-run --quiet --pipe --wait --collect --unit="bringup-verify-$engine-$$" --property=User="$user" \
        --property=PrivateNetwork=yes --property=PrivateTmp=yes --property=ProtectHome=yes \
        --property=ProtectSystem=strict --property=TemporaryFileSystem=/dev/shm:mode=1777 \
        --property=NoNewPrivileges=yes --property=OOMScoreAdjust=1000 --property=Nice=10 \
        --property=RuntimeMaxSec=900 --property=WorkingDirectory=/tmp \
        env "$@" HOME=/tmp TMPDIR=/tmp VLLM_CACHE_ROOT=/tmp/vllm XDG_CACHE_HOME=/tmp PYTHONDONTWRITEBYTECODE=1 \
        CUDA_CACHE_DISABLE=1 CUDA_DEVICE_ORDER=PCI_BUS_ID VLLM_ENABLE_V1_MULTIPROCESSING=0 \
        HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 \
        "$prefix/bin/python" -c "$generator" "$engine" "$directory" "$options" 2>&1 | tail -n 20
}

service() { # UNIT MODEL_DIRECTORY
    block security "$1"; systemd-analyze security --no-pager "$1" 2>/dev/null | tail -n 1
    block unit "$1"; systemctl show "$1" --property=@PROPERTIES@
    block memory "$1"; systemctl show "$1" --property=MemoryCurrent
    # what the server said of its memory when it started
    journalctl --quiet --no-pager --output=cat _SYSTEMD_INVOCATION_ID="$(systemctl show --value -p InvocationID "$1")" \
        2>/dev/null | grep -E 'Model loading took|KV cache size' | cut -c 1-300 | tail -n 20
    group=$(systemctl show "$1" --property=ControlGroup --value)
    main=$(systemctl show "$1" --property=MainPID --value)
    block processes "$1"
    if [ -n "$group" ]; then
        grep -l -F -e "$group" /proc/[0-9]*/cgroup 2>/dev/null | cut -d / -f 3 | while read -r pid; do
            echo "$pid $(sed -n 's/^Uid:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status" 2>/dev/null)"
        done
    fi
    block resident "$1"
    if [ -n "$group" ]; then
        grep -l -F -e "$group" /proc/[0-9]*/cgroup 2>/dev/null | cut -d / -f 3 | while read -r pid; do
            echo "$pid $(sed -n 's/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status" 2>/dev/null)"
        done
    fi
    # as the service sees the file system
    block writable "$1"
    if [ "${main:-0}" -gt 0 ]; then
        nsenter --target "$main" --mount -- setpriv --reuid "$(id -u "$user")" --regid "$(id -g "$user")" \
            --init-groups -- find "$2" -writable 2>/dev/null | head -n 20
        echo "exit 0"
    fi
}

secrets() { # FILE, which nobody but root and the front may read
    if [ -z "$key" ]; then return; fi
    block key_in_command_lines; of_processes cmdline
    block key_in_environments; of_processes environ
    block key_in_unit_properties; lines_with_key_of systemctl show 'vllm-*' 'ollama-*' 'bringup-*'
    block key_in_journal; lines_with_key_of journals
    block key_in_files
    printf '%s\n' "$key" |
        grep -r -l -a -F -f - /etc/bringup /etc/systemd/system /opt/bringup/bin /var/lib/bringup 2>/dev/null
    block front_readers
    for user in nobody @USER@; do
        if unprivileged test -r "$1"; then echo "$user"; fi
    done
    user=@USER@
    unset key
    block key_searched
}
of_processes() {
    printf '%s\n' "$key" | grep -l -a -F -f - /proc/[0-9]*/"$1" 2>/dev/null | cut -d / -f 3 | while read -r pid; do
        echo "$pid $(sed -n 's/^Uid:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status") $(cat "/proc/$pid/comm")"
    done 2>/dev/null
}
journals() {
    journalctl --quiet --no-pager --output=cat --unit='vllm-*' --unit='ollama-*' --unit='bringup-*'
    journalctl --quiet --no-pager --output=cat --identifier=bringup_gateway
    journalctl --quiet --no-pager --output=cat --identifier=sudo
}
lines_with_key_of() {
    printf '%s\n' "$key" | { exec 3<&0; "$@" </dev/null 2>/dev/null | grep -c -a -F -f /dev/fd/3; }
}
