# Put before what needs to know what the workspace is like now: $tree. FOLDER is $1. Nothing of the
# repository changes: index and new objects are elsewhere, and gone afterwards.
cd "$1"
if ! [ -d .git ]; then
    echo "$1 is no git repository any more" >&2
    exit 1
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/objects"
# With its time: a file that was changed in the second in which the index was written is found by that alone.
cp -p .git/index "$scratch/index" 2>/dev/null || :
GIT_ALTERNATE_OBJECT_DIRECTORIES=$PWD/.git/objects
GIT_OBJECT_DIRECTORY=$scratch/objects
GIT_INDEX_FILE=$scratch/index
export GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_OBJECT_DIRECTORY GIT_INDEX_FILE
g add -u .
# Repositories within are named with a slash at the end, and left out with a word on standard error.
g ls-files -z --others --exclude-standard >"$scratch/others"
if [ -s "$scratch/others" ]; then
    g update-index --add --remove -z --stdin <"$scratch/others"
fi
tree=$(g write-tree)
empty() { g mktree </dev/null; }
