# What every script here begins with. Hooks and monitors of the guest's repository stay out of it, and
# nobody is asked anything. Large files are neither held in memory where that can be helped nor compressed
# with care: an emulated guest has more disk than time.
set -eu
export LC_ALL=C GIT_TERMINAL_PROMPT=0 GIT_LFS_SKIP_SMUDGE=1 GIT_LITERAL_PATHSPECS=1
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY
g() {
    git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c core.safecrlf=false \
        -c core.compression=1 -c core.bigFileThreshold=64m "$@"
}
