# open.sh FOLDER FORMAT: makes the workspace's folder, configured by standard input, or says what it is:
# `new`, `known COMMIT`, `known -`, `partial` (a first preparation that did not end), `files` (no git in this
# image), `files-again`, or `taken`.
folder=$1
format=$2
has_git() { command -v git >/dev/null 2>&1; }
if [ -e "$folder" ] || [ -L "$folder" ]; then
    if [ -d "$folder/.git/banger" ] && has_git; then
        cd "$folder"
        if [ -e .git/banger/partial ] && ! g rev-parse --verify --quiet refs/banger/prepared >/dev/null; then
            echo partial
        else
            echo "known $(g rev-parse --verify --quiet refs/banger/base || echo -)"
        fi
    elif [ -f "$folder/.banger-workspace" ]; then
        echo files-again
    else
        echo taken
    fi
    exit
fi
# Made aside and moved into place as a whole: what is cut short here is nobody's when the next one looks.
made=$folder.banger-new
rm -rf -- "$made"
mkdir -p "$made"
if has_git; then
    set -- -q -b main --template=
    [ "$format" = sha1 ] || set -- "$@" --object-format="$format"
    g init "$@" "$made"
    mkdir "$made/.git/banger" "$made/.git/info"
    : >"$made/.git/banger/partial"
    cat >>"$made/.git/config"
    state=new
else
    : >"$made/.banger-workspace"
    state=files
fi
mv "$made" "$folder"
echo $state
