<?php
// Verify a webhook of the marketplace: verify() throws unless the request is signed and at most 5 minutes old.
// Pass the body as it came: file_get_contents('php://input'), before any JSON is read.
declare(strict_types=1);

const TOLERANCE_SECONDS = 300;

function verify(string $secret, array $headers, string $body): void
{
    $id = $headers['webhook-id'] ?? '';
    $timestamp = $headers['webhook-timestamp'] ?? '';
    if (!ctype_digit($timestamp) || abs(time() - (int) $timestamp) > TOLERANCE_SECONDS) {
        throw new RuntimeException('the timestamp is missing or more than 5 minutes away');
    }
    $key = base64_decode(preg_replace('/^whsec_/', '', $secret));
    $expected = hash_hmac('sha256', "$id.$timestamp.$body", $key, true);
    foreach (explode(' ', $headers['webhook-signature'] ?? '') as $signature) {
        [$version, $text] = array_pad(explode(',', $signature, 2), 2, '');
        $decoded = base64_decode($text, true);
        if ($version === 'v1' && $decoded !== false && hash_equals($expected, $decoded)) {
            return;
        }
    }
    throw new RuntimeException('no signature fits');
}

if (PHP_SAPI === 'cli' && realpath($argv[0]) === __FILE__) {
    $headers = [];
    foreach (['webhook-id', 'webhook-timestamp', 'webhook-signature'] as $name) {
        $headers[$name] = (string) getenv(strtoupper(str_replace('-', '_', $name)));
    }
    try {
        verify((string) getenv('SECRET'), $headers, (string) file_get_contents('php://stdin'));
    } catch (RuntimeException $error) {
        fwrite(STDERR, 'refused: ' . $error->getMessage() . "\n");
        exit(1);
    }
    echo "verified\n";
}
