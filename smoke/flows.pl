# One attempt per line of input: NAME KIND ARGUMENTS. Says NAME and what came of it.
use strict;
use warnings;
use Socket qw(:all);
use Errno qw(ECONNREFUSED EHOSTUNREACH ENETUNREACH EACCES EINPROGRESS);
use Time::HiRes qw(time sleep);

$| = 1;
$SIG{PIPE} = 'IGNORE';

sub is_refusal { my $e = shift; return $e == ECONNREFUSED || $e == EHOSTUNREACH || $e == ENETUNREACH || $e == EACCES }

sub wait_for { my ($fh, $write, $limit) = @_;
    my $bits = ''; vec($bits, fileno($fh), 1) = 1;
    my ($r, $w) = $write ? (undef, $bits) : ($bits, undef);
    return select($r, $w, undef, $limit) > 0;
}

sub resolve { my $host = shift;
    return inet_aton($host) if $host =~ /^[\d.]+$/;
    return scalar gethostbyname($host);
}

sub tcp { my ($host, $port, $from) = @_;
    my $address = resolve($host) or return 'no-name';
    socket(my $s, PF_INET, SOCK_STREAM, 0) or die $!;
    if ($from) {
        setsockopt($s, SOL_SOCKET, SO_REUSEADDR, pack('l', 1));
        bind($s, pack_sockaddr_in($from, INADDR_ANY)) or die "bind: $!";
    }
    use Fcntl; fcntl($s, F_SETFL, O_NONBLOCK);
    if (!connect($s, pack_sockaddr_in($port, $address))) {
        return 'refused' if is_refusal(0 + $!);
        die "connect: $!" unless $! == EINPROGRESS;
        return 'silent' unless wait_for($s, 1, 4);
        my $error = unpack('i', getsockopt($s, SOL_SOCKET, SO_ERROR));
        return is_refusal($error) ? 'refused' : "error-$error" if $error;
    }
    return 'silent' unless wait_for($s, 0, 4);
    sysread($s, my $said, 200);
    return $said =~ /^I am/ ? 'reaches' : 'odd';
}

sub udp { my ($host, $port) = @_;
    my $address = resolve($host) or return 'no-name';
    socket(my $s, PF_INET, SOCK_DGRAM, 0) or die $!;
    connect($s, pack_sockaddr_in($port, $address)) or return 'refused';
    send($s, 'x', 0);
    return 'silent' unless wait_for($s, 0, 2);
    return defined(recv($s, my $said, 200, 0)) ? 'reaches' : is_refusal(0 + $!) ? 'refused' : "error $!";
}

sub sum { my $s = 0; $s += $_ for unpack('n*', shift); $s = ($s >> 16) + ($s & 0xffff); return ~($s + ($s >> 16)) & 0xffff }

sub ping { my $host = shift;
    my $address = resolve($host) or return 'no-name';
    socket(my $s, PF_INET, SOCK_RAW, 1) or die $!;
    my $id = $$ & 0xffff;
    my $packet = pack('CCnnn', 8, 0, 0, $id, 1) . 'banger!!';
    substr($packet, 2, 2) = pack('n', sum($packet));
    send($s, $packet, 0, pack_sockaddr_in(0, $address)) or return 'refused';
    my $end = time + 2;
    while ((my $rest = $end - time) > 0) {
        last unless wait_for($s, 0, $rest);
        recv($s, my $said, 1500, 0);
        my $type = unpack('C', substr($said, 20, 1));
        return 'reaches' if $type == 0 && unpack('n', substr($said, 24, 2)) == $id;
        return 'refused' if $type == 3;
    }
    return 'silent';
}

# The answer's code and addresses.
sub dns { my ($server, $name, $type, $carrier) = @_;
    my $question = pack('nnnnnn', 4711, 0x0100, 1, 0, 0, 0) . join('', map { pack('C/a*', $_) } split(/\./, $name)) . pack('Cnn', 0, $type, 1);
    my $stream = $carrier eq 'tcp';
    socket(my $s, PF_INET, $stream ? SOCK_STREAM : SOCK_DGRAM, 0) or die $!;
    fcntl($s, F_SETFL, O_NONBLOCK);
    if (!connect($s, pack_sockaddr_in(53, inet_aton($server)))) {
        return 'refused' if is_refusal(0 + $!);
        return 'silent' unless wait_for($s, 1, 3);
        my $error = unpack('i', getsockopt($s, SOL_SOCKET, SO_ERROR));
        return is_refusal($error) ? 'refused' : "error-$error" if $error;
    }
    syswrite($s, $stream ? pack('n', length $question) . $question : $question);
    return 'silent' unless wait_for($s, 0, 6);
    my $count = sysread($s, my $answer, 4096);
    return 'refused' unless $count;
    substr($answer, 0, 2) = '' if $stream;
    my ($id, $flags, $q, $a) = unpack('nnnn', $answer);
    return 'odd' unless $id == 4711;
    my @codes = ('yes', 'formerr', 'servfail', 'nxdomain', 'notimp', 'refused-by-dns');
    return $codes[$flags & 15] unless ($flags & 15) == 0;
    return $a ? 'reaches' : 'empty';
}

sub ipv6 { my ($address, $port) = @_;
    socket(my $s, PF_INET6, SOCK_STREAM, 0) or return 'refused';
    return 'reaches' if connect($s, pack_sockaddr_in6($port, inet_pton(AF_INET6, $address)));
    return 'refused';
}

my %kinds = (tcp => \&tcp, udp => \&udp, ping => \&ping, dns => \&dns, ipv6 => \&ipv6);
while (my $line = <STDIN>) {
    my ($name, $kind, @arguments) = split ' ', $line;
    if ($kind eq 'sleep') { sleep $arguments[0]; next }
    my $began = time;
    my $came = $kinds{$kind}->(@arguments);
    printf "%s %s %d\n", $name, $came, 1000 * (time - $began);
    # The kernel answers a host's mistakes with ICMP once a second (icmp_ratelimit).
    sleep 1 if $came eq 'refused' && $kind ne 'tcp';
}
