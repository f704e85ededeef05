# What somebody does in a guest, in a repository that may be anything: commits, edits, moves, and leaves all kinds
# of files behind.
set -eu
odd_name=$(printf 'new\377\n"\\')
printf 'committed\n' >committed-new
git add committed-new
git commit -q -m 'in the guest' -- committed-new || git commit -q --no-verify -m 'in the guest' || :
for name in same a plain run; do
    [ ! -f "$name" ] || printf 'work\n' >>"$name"
done
[ ! -f crlf ] || printf 'one\r\n2\r\n' >crlf
[ ! -f eol.txt ] || printf 'one\r\n2\r\n' >eol.txt
[ ! -f bin ] || head -c 90000 /dev/urandom >bin
[ ! -f large.bin ] || printf 'changed' | dd of=large.bin bs=1 seek=1000 conv=notrunc 2>/dev/null
[ ! -f dir/same ] || mv dir/same moved
[ ! -f 'a b' ] || rm 'a b'
[ ! -f staged ] || chmod +x staged
[ ! -L link ] || { rm link && ln -s committed-new link; }
mkdir -p work/deep
printf 'u' >"work/deep/$odd_name"
ln -s deep work/link
head -c 5000 /dev/urandom >work/bytes
: >work/nothing
printf 'ignored' >ignored
