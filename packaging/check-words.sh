#!/bin/sh
# Finds the words that docs/glossary.md rules out, in sources, tests, documents and examples. Prints file, line, the word and what to
# write instead; exits with 1 if there are any. A phrase is found across the end of a line, too.
set -eu

cd "$(dirname "$0")/.."
find src tests benches fuzz/fuzz_targets docs packaging systemd Makefile Cargo.toml config.yaml.example ./*.md -type f \
    ! -path docs/glossary.md | sort | perl -e '
    use strict;
    use warnings;

    my (@rules, $in_table);
    open my $glossary, "<", "docs/glossary.md" or die "docs/glossary.md: $!\n";
    while (<$glossary>) {
        $in_table = 1 if /^\| instead of \| write \|/;
        next unless $in_table && /^\| (`.*?`) \| (.*?) \|(.*)\|$/;
        my ($phrases, $write, $except) = ($1, $2, $3);
        my $fine = join "|", map { pattern($_) } $except =~ /`([^`]+)`/g;
        push @rules, [pattern($_), $write, $fine] for $phrases =~ /`([^`]+)`/g;
    }
    die "docs/glossary.md: the table of ruled-out words is missing\n" unless @rules;

    # Words may be separated by an underscore, or by the end of a line of a comment or of a string.
    sub pattern {
        my $gap = q{(?:[ _]|\s*\\\\?\n\s*(?://[/!]?|#+)?\s*)};
        my $words = join $gap, map { quotemeta } split / /, $_[0];
        # "a file of etcd\x27s" is ruled out, "the end of etcd\x27s log" is not.
        $words .= q{(?=\s*(?:[.,;:)]|(?:is|are|has|that|which|in|as|and|or|to|for|of|on|may|can|cannot|must)\b))} if $_[0] =~ /^of /;
        return $_[0] =~ /[A-Z]/ && $_[0] !~ /^of / ? "\\b$words\\b" : "(?i:(?<![a-z])$words(?![a-z]))";
    }

    my $found = 0;
    while (my $file = <STDIN>) {
        chomp $file;
        next if -B $file && !-z $file;
        open my $input, "<", $file or die "$file: $!\n";
        my $text = do { local $/; <$input> };
        for my $rule (@rules) {
            my ($pattern, $write, $fine) = @$rule;
            while ($text =~ /$pattern/g) {
                my ($start, $end) = ($-[0], $+[0]);
                my $word = substr $text, $start, $end - $start;
                my $context_start = $start > 20 ? $start - 20 : 0;
                my $context = substr $text, $context_start, $end - $context_start + 20;
                next if $fine && $context =~ /$fine/;
                my $line = 1 + (substr($text, 0, $start) =~ tr/\n//);
                $word =~ s/\s+/ /g;
                print "$file:$line: \"$word\"; write: $write\n";
                $found++;
            }
        }
    }
    if ($found) {
        print STDERR "check-words: $found words that docs/glossary.md rules out\n";
        exit 1;
    }
'
