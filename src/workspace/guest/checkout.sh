# checkout.sh FOLDER COMMIT SHALLOW: brings files and index to COMMIT ('' before the first one) and what the lists
# in .git/banger say on top of it. SHALLOW: the commit's parents are not here.
cd "$1"
commit=$2 shallow=$3
lists=.git/banger
: >$lists/partial
if [ "$shallow" = yes ] && ! grep -qxs "$commit" .git/shallow; then
    echo "$commit" >>.git/shallow
fi
tree=$commit
if [ -s $lists/staged ] || [ -z "$commit" ]; then
    rm -f $lists/next
    [ -z "$commit" ] || GIT_INDEX_FILE=$lists/next g read-tree "$commit"
    GIT_INDEX_FILE=$lists/next g update-index -z --index-info <$lists/staged
    tree=$(GIT_INDEX_FILE=$lists/next g write-tree)
    rm -f $lists/next
fi
if [ -s $lists/flagged ]; then
    # Of what was not to be looked at, nothing is known: everything is checked out anew.
    rm -f .git/index
fi
if [ -s $lists/sent ]; then
    xargs -0 rm -f -- <$lists/sent
fi
g read-tree --reset -u "$tree"
echo "$tree" >$lists/tree
if [ -s $lists/skipped ]; then
    g update-index --skip-worktree -z --stdin <$lists/skipped
    xargs -0 rm -f -- <$lists/skipped
fi
if [ -s $lists/deleted ]; then
    xargs -0 rm -f -- <$lists/deleted
fi
if [ -s $lists/emptied ]; then
    # A folder that holds something of the guest's own stays.
    xargs -0 rmdir -- <$lists/emptied 2>/dev/null || :
fi
if [ -s $lists/submodules ]; then
    xargs -0 mkdir -p -- <$lists/submodules
fi
