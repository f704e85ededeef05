# settle.sh FOLDER COMMIT HEAD: the rest of the index once all files are there, the branch, and a snapshot of what
# was brought in. HEAD is a branch, or '' for none.
cd "$1"
commit=$2 head=$3
lists=.git/banger
if [ -s $lists/unmerged ]; then
    g update-index -z --index-info <$lists/unmerged
fi
if [ -s $lists/intended ]; then
    g add -N --pathspec-from-file=$lists/intended --pathspec-file-nul
fi
tree=$(cat $lists/tree)
if [ -s $lists/touched ]; then
    # With its time, or what was put in place since the checkout could pass for unchanged.
    cp -p .git/index $lists/next
    GIT_INDEX_FILE=$lists/next g update-index --add --remove --replace -z --stdin <$lists/touched
    tree=$(GIT_INDEX_FILE=$lists/next g write-tree)
    rm -f $lists/next
fi
if [ -s $lists/assumed ]; then
    g update-index --assume-unchanged -z --stdin <$lists/assumed
fi
cat $lists/skipped $lists/assumed >$lists/flagged
mv $lists/others $lists/sent
if [ -z "$head" ]; then
    echo "$commit" >.git/HEAD
else
    echo "ref: $head" >.git/HEAD
fi
{
    echo "update refs/banger/prepared $tree"
    if [ -n "$commit" ]; then
        echo "update refs/banger/base $commit"
        [ -z "$head" ] || echo "update $head $commit"
    fi
} | g update-ref --stdin
rm -f $lists/partial
