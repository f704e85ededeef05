# settle.sh FOLDER: the rest of the index once all files are there, and a snapshot of what was brought in.
cd "$1"
lists=.git/banger
if [ -s $lists/unmerged ]; then
    g update-index -z --index-info <$lists/unmerged
fi
if [ -s $lists/intended ]; then
    g add -N --pathspec-from-file=$lists/intended --pathspec-file-nul
fi
if [ -s $lists/touched ]; then
    cp .git/index $lists/next
    GIT_INDEX_FILE=$lists/next g update-index --add --remove --replace -z --stdin <$lists/touched
    tree=$(GIT_INDEX_FILE=$lists/next g write-tree)
    rm -f $lists/next
else
    tree=$(g write-tree)
fi
if [ -s $lists/assumed ]; then
    g update-index --assume-unchanged -z --stdin <$lists/assumed
fi
cat $lists/skipped $lists/assumed >$lists/flagged
mv $lists/others $lists/sent
g update-ref refs/banger/prepared "$tree"
