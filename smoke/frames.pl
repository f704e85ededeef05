# Frames as no kernel would send them, and an ear for what arrives: runs in a guest of the scenario
# `guests_are_apart` (packet(7); perl without modules is in every Debian).
#
#   listen                                  prints the <NAME> in each frame that arrives, until <over>
#   send OWN-IP PEER-MAC PEER-IP GW-MAC GW-IP    each attack three times, with its <NAME> inside
#   sweep OWN-IP GW-MAC GW-IP               prints how many TCP ports answer, and which are open
use strict;
use warnings;
use Socket qw(:DEFAULT inet_pton);
$| = 1;

sub slurp { open my $file, '<', shift or die "$!"; chomp(my $line = <$file>); $line }
sub mac { pack 'H*', join '', split /:/, shift }

my $index = slurp('/sys/class/net/eth0/ifindex');
my $own = mac(slurp('/sys/class/net/eth0/address'));
my ($verb, @rest) = @ARGV;
my $every = $verb eq 'sweep' ? 0x0800 : 0x0003;    # ETH_P_IP: what arrives; ETH_P_ALL: also what is no IPv4
socket(my $wire, 17, SOCK_RAW, unpack 'S', pack 'n', $every) or die "AF_PACKET: $!";
setsockopt($wire, SOL_SOCKET, 33, 64 << 20) or die "SO_RCVBUFFORCE: $!";
bind($wire, pack 'S n i S C C a8', 17, $every, $index, 1, 0, 6, $own) or die "bind: $!";

sub sum {
    my $total = 0;
    $total += $_ for unpack 'n*', $_[0] . (length($_[0]) % 2 ? "\0" : '');
    $total = ($total & 0xffff) + ($total >> 16) while $total >> 16;
    ~$total & 0xffff;
}
sub ethernet { my ($to, $from, $type, $rest) = @_; $to . $from . pack('n', $type) . $rest }
sub ip4 {
    my ($from, $to, $protocol, $rest) = @_;
    my $head = sub { pack 'C C n n n C C n a4 a4', 0x45, 0, 20 + length $rest, 0, 0, 64, $protocol, $_[0], $from, $to };
    $head->(sum($head->(0))) . $rest;
}
sub udp { my ($port, $text) = @_; pack('n n n n', 4000, $port, 8 + length $text, 0) . $text }
sub udp4 { my ($from, $to, $port, $text) = @_; ip4($from, $to, 17, udp($port, $text)) }
sub udp6 {
    my ($from, $to, $port, $text) = @_;
    my $length = 8 + length $text;
    my $sum = sum($from . $to . pack('N N n n n n', $length, 17, 4000, $port, $length, 0) . $text);
    pack('N n C C', 0x60000000, $length, 17, 64) . $from . $to . pack('n n n n', 4000, $port, $length, $sum) . $text;
}
sub arp { my ($op, $ha, $pa, $tha, $tpa, $text) = @_; pack('n n C C n', 1, 0x0800, 6, 4, $op) . $ha . $pa . $tha . $tpa . $text }

sub hear {
    syswrite STDOUT, "listening\n";
    while (sysread $wire, my $frame, 2048) {
        next unless $frame =~ /<([a-z0-9-]+)>/;
        print "$1\n";
        last if $1 eq 'over';
    }
}

sub attack {
    my ($me, $peer_mac, $peer, $gw_mac, $gw) = map { /:/ ? mac($_) : inet_aton($_) } @_;
    my $stolen = mac('02:62:67:00:00:63');
    my $all = "\xff" x 6;
    my $link_local = sub { inet_pton(AF_INET6, 'fe80::6267:' . shift) };
    my $all_nodes = inet_pton(AF_INET6, 'ff02::1');
    my ($unique, $unique_peer) = map { inet_pton(AF_INET6, "fd00::$_") } 1, 2;
    my %frames = (
        'own-frame' => sub { ethernet $gw_mac, $own, 0x0800, udp4($me, $gw, 53, $_[0]) },
        'stolen-mac' => sub { ethernet $gw_mac, $stolen, 0x0800, udp4($me, $gw, 53, $_[0]) },
        'neighbours-mac' => sub { ethernet $gw_mac, $peer_mac, 0x0800, udp4($me, $gw, 53, $_[0]) },
        'neighbours-address' => sub { ethernet $gw_mac, $own, 0x0800, udp4($peer, $gw, 53, $_[0]) },
        'neighbours-both' => sub { ethernet $gw_mac, $peer_mac, 0x0800, udp4($peer, $gw, 53, $_[0]) },
        'direct' => sub { ethernet $peer_mac, $own, 0x0800, udp4($me, $peer, 9, $_[0]) },
        'through-the-host' => sub { ethernet $gw_mac, $own, 0x0800, udp4($me, $peer, 9, $_[0]) },
        'as-the-gateway' => sub { ethernet $peer_mac, $gw_mac, 0x0800, udp4($gw, $peer, 9, $_[0]) },
        'broadcast' => sub { ethernet $all, $own, 0x0800, udp4($me, "\xff" x 4, 9, $_[0]) },
        'multicast' => sub { ethernet mac('01:00:5e:00:00:01'), $own, 0x0800, udp4($me, inet_aton('224.0.0.1'), 9, $_[0]) },
        'vlan' => sub { ethernet $peer_mac, $own, 0x8100, pack('n n', 7, 0x0800) . udp4($me, $peer, 9, $_[0]) },
        'unknown-ethertype' => sub { ethernet $peer_mac, $own, 0x88b5, $_[0] },
        'ipv6-link-local' => sub { ethernet mac('33:33:00:00:00:01'), $own, 0x86dd, udp6($link_local->('1'), $all_nodes, 53, $_[0]) },
        'ipv6-static' => sub { ethernet $peer_mac, $own, 0x86dd, udp6($unique, $unique_peer, 9, $_[0]) },
        'arp-who-has-neighbour' => sub { ethernet $all, $own, 0x0806, arp(1, $own, $me, "\0" x 6, $peer, $_[0]) },
        'arp-i-am-the-gateway' => sub { ethernet $all, $own, 0x0806, arp(2, $own, $gw, $all, $gw, $_[0]) },
        'arp-i-am-the-neighbour' => sub { ethernet $gw_mac, $own, 0x0806, arp(2, $own, $peer, $gw_mac, $gw, $_[0]) },
    );
    # Last what may lead the others astray: the bridge sends to a MAC where it saw it last.
    for my $lies (0, 1) {
        my @names = grep { /^(?:arp-i-am|neighbours)/ == $lies } sort keys %frames;
        for my $round (1 .. 3) {
            syswrite $wire, $frames{$_}->("<$_>" . "\0" x 32) or die "$_: $!" for @names;
            # The host takes no second answer for an address within its locktime, 1 s (arp(7)).
            select undef, undef, undef, 1.2;
        }
    }
}

sub sweep {
    my ($me, $gw_mac, $gw) = map { /:/ ? mac($_) : inet_aton($_) } @_;
    my $sender = fork // die "fork: $!";
    if (!$sender) {
        my $pseudo = $me . $gw . pack('n n', 6, 20);
        for my $port (1 .. 65535) {
            my $syn = sub { pack 'n n N N n n n n', 4001, $port, 1, 0, 0x5002, 1024, shift, 0 };
            my $frame = ethernet $gw_mac, $own, 0x0800, ip4($me, $gw, 6, $syn->(sum($pseudo . $syn->(0))));
            1 until syswrite $wire, $frame or !$!{ENOBUFS};
        }
        exit 0;
    }
    my (%answers, $ended);
    for (;;) {
        vec(my $bits = '', fileno $wire, 1) = 1;
        $ended ||= waitpid $sender, 1;
        last unless select $bits, undef, undef, 3 or !$ended;
        next unless vec $bits, fileno $wire, 1;
        sysread $wire, my $frame, 2048;
        # IPv4 without options, TCP from the gateway to the port that was asked from.
        next unless substr($frame, 12, 2) eq "\x08\x00" and substr($frame, 23, 1) eq "\x06" and substr($frame, 26, 4) eq $gw;
        my ($port, $to) = unpack 'n n', substr $frame, 34, 4;
        # SYN and ACK: somebody listens; anything else is a refusal.
        $answers{$port} = (unpack('C', substr $frame, 47, 1) & 0x12) == 0x12 if $to == 4001;
    }
    my @open = sort { $a <=> $b } grep { $answers{$_} } keys %answers;
    print scalar(keys %answers), " of 65535 answer, open: @open[0 .. ($#open > 4 ? 4 : $#open)]\n";
}

{ listen => \&hear, send => \&attack, sweep => \&sweep }->{$verb}->(@rest);
