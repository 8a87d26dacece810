use strict; use warnings;
my $text = join ' ', map { "k$_=" . $_ * $_ } 1 .. 50;
my %h = $text =~ /k(\d+)=(\d+)/g;
print scalar(keys %h), " $h{7} $h{50}\n";
(my $t = "The Cat sat") =~ s/(\w+)/\u\L$1/g; print "$t\n";
print join('|', "a1b22c333" =~ /(\d+)(?!\d)/g), "\n";
print "balanced\n" if "(a(b)(c(d)))" =~ /^(\((?:[^()]++|(?1))*\))$/;
print "2024-05-17" =~ /^(?<y>\d{4})-(?<m>\d\d)-(?<d>\d\d)$/ ? "$+{d}.$+{m}.$+{y}\n" : "no\n";
print unpack('H*', pack('NnCa5Z4vVw', 0xdeadbeef, 0x1234, 255, 'abc', 'xyzw', 1, 2, 300)), "\n";
print unpack('H*', pack('d>f>q<', 0.1, -1.5, -2)), "\n";
print join(',', unpack('(A2)*', 'aabbccdd')), ' ', unpack('%32b*', 'perl'), "\n";
printf "%.15g %.17g %e %g %g %.3f %5.1f|%-8s|%+d|%x|%o|%b|%s\n", 0.1, 0.1, 12345.678, 1e21, 1e-5, 2.0005, 3.14159, 'ab', 42, 255, 8, 10, 1e15 + 0.3;
print 1e308 * 10, ' ', -9**9**9, ' ', 9**20, ' ', 2**53 + 1, ' ', 10 / 3, ' ', -7 % 3, ' ', int(-7.5), "\n";
print sqrt(2), ' ', exp(1), ' ', atan2(1, 1) * 4, ' ', sin(1e6), ' ', log(10), "\n";
my ($x, @n) = (1);
for (1 .. 100_000) { $x = ($x * 16807) % 2147483647; push @n, $x }
my @s = sort { $a <=> $b } @n;
my ($sum, $i) = (0, 0);
$sum = ($sum * 31 + $_ * ++$i) % 1000000007 for @s;
print "$s[0] $s[50000] $s[-1] $sum\n";
my @l = sort @n; print "$l[0] $l[-1]\n";
my %count; $count{$_ % 97}++ for @n; print join(',', map { $count{$_} } (0, 1, 96)), "\n";
print join(' ', map { sprintf '%s', $_ } reverse sort { length $a <=> length $b or $a cmp $b } qw(pear fig apple kiwi)), "\n";
my $f; $f = sub { my $n = shift; $n < 2 ? $n : $f->($n - 1) + $f->($n - 2) }; print $f->(20), "\n";
print join(',', map { chr(ord($_) ^ 32) } split //, 'Hello'), ' ', lc('ÀB'), ' ', ucfirst('abc'), ' ', 'ab' x 3, "\n";
eval { die { code => 42 } }; print "died $@->{code}\n";
local $SIG{ALRM} = sub { die "alarm\n" }; eval { alarm 1; select undef, undef, undef, 30; }; print "got $@";
my $pid = open(my $p, '-|') // die; if (!$pid) { print "child line $_\n" for 1 .. 3; exit 3 }
my @got = <$p>; close $p; print scalar(@got), ' ', $? >> 8, "\n";
my $v = ''; vec($v, 3, 4) = 15; vec($v, 20, 1) = 1; print unpack('b*', $v), "\n";
print join(',', (sort { $a <=> $b } map { hash31($_) } 'a' .. 'zz')[0, 350, 701]), "\n";
sub hash31 { my $h = 7; $h = ($h * 31 + ord) & 0xffffffff for split //, shift; $h }
format STDOUT =
@<<<<< @>>>>> @##.##
'left', 'right', 3.14159
.
write;
