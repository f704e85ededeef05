# Looks for a needle in all of this guest's memory, in what its processes have of it, in their environments and
# on its disk, and says in how many pieces of each it was found. The needle comes, and is looked for, with each of
# its bytes changed: so that neither this program nor its own memory holds what is looked for.
use strict; use warnings;
my ($hex) = @ARGV;
my $needle = pack 'H*', $hex;    # each byte ^ 0x5a
my $piece = 1 << 20;
$| = 1;

sub pieces {
    my ($file, $at, $end) = @_;
    my ($found, $bytes) = (0, 0);
    while ($at < $end) {
        my $want = $end - $at < $piece ? $end - $at : $piece;
        sysseek($file, $at, 0) or last;
        my $got = sysread($file, my $data, $want);
        if (defined $got && $got > 0) {
            $bytes += $got;
            $data ^= "\x5a" x length $data;
            $found++ if index($data, $needle) >= 0;
        } else {
            $got = 4096;    # a page that is not there
        }
        # What lies across two pieces is found in the next.
        $at += $got > 4096 && $got > length $needle ? $got - length $needle : $got;
        last if defined $got && $got <= length $needle;
    }
    return ($found, $bytes);
}

# The kernel's own view of memory: where the direct map is, all of RAM is (core(5), proc(5)).
sub memory {
    open(my $core, '<:raw', '/proc/kcore') or die "kcore: $!";
    sysread($core, my $head, 64) == 64 or die "kcore is short";
    my ($phoff, $phsize, $phnum) = (unpack('x32 Q', $head), unpack('x54 S S', $head));
    open(my $info, '<', '/proc/meminfo') or die $!;
    my ($kib) = map { /^MemTotal:\s+(\d+)/ ? $1 : () } <$info>;
    my ($found, $bytes) = (0, 0);
    for my $n (0 .. $phnum - 1) {
        sysseek($core, $phoff + $n * $phsize, 0); sysread($core, my $ph, $phsize);
        my ($type, $offset, $size) = (unpack('L', $ph), unpack('x8 Q', $ph), unpack('x40 Q', $ph));
        my $address = unpack('x16 Q', $ph);
        # vmalloc, modules and the vmemmap are windows on the same memory, of terabytes.
        next if $type != 1 || $size > $kib * 1024 * 2 || $address >= 0xffffffff00000000;
        my ($f, $b) = pieces($core, $offset, $offset + $size);
        $found += $f; $bytes += $b;
    }
    return ($found, $bytes);
}

sub processes {
    my ($found, $bytes, $environments) = (0, 0, 0);
    for my $pid (grep { /^\d+$/ } map { s{^/proc/}{}r } glob '/proc/*') {
        if (open(my $env, '<:raw', "/proc/$pid/environ")) {
            local $/; my $data = <$env> // '';
            $data ^= "\x5a" x length $data;
            $environments++ if index($data, $needle) >= 0;
        }
        next if $pid == $$;
        open(my $maps, '<', "/proc/$pid/maps") or next;
        open(my $mem, '<:raw', "/proc/$pid/mem") or next;
        for (<$maps>) {
            /^([0-9a-f]+)-([0-9a-f]+) rw/ or next;
            my ($begin, $end) = (hex $1, hex $2);
            next if $end - $begin > 1 << 28;
            my ($f, $b) = pieces($mem, $begin, $end);
            $found += $f; $bytes += $b;
        }
    }
    return ($found, $bytes, $environments);
}

sub disk {
    open(my $disk, '<:raw', $ARGV[1]) or die "$ARGV[1]: $!";
    return pieces($disk, 0, -s $disk || do { sysseek($disk, 0, 2) });
}

my ($memory, $all) = memory();
my ($private, $some, $environments) = processes();
my ($stored, $size) = disk();
printf "memory %d of %d MiB, processes %d of %d MiB, environments %d, disk %d of %d MiB\n",
    $memory, $all >> 20, $private, $some >> 20, $environments, $stored, $size >> 20;
