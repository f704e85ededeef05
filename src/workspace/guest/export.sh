# export.sh FOLDER FROM [OPTION...]: the commit or tree that it begins from, a line, and how the workspace
# differs from it. FROM is a commit, `@base`, or `@prepared`: with the edits that were brought in.
from=$2
shift 2
case $from in
@base) base=$(g rev-parse --verify --quiet refs/banger/base || empty) ;;
@prepared) base=$(g rev-parse --verify --quiet refs/banger/prepared || empty) ;;
*)
    if ! base=$(g rev-parse --verify --quiet --end-of-options "$from^{commit}"); then
        echo "the guest has no commit $from" >&2
        exit 1
    fi
    ;;
esac
echo "$base"
g diff-tree -r --no-ext-diff --no-textconv --no-color --src-prefix=a/ --dst-prefix=b/ "$@" "$base" "$tree"
