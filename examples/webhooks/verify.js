// Verify a webhook of the marketplace: `verify` throws unless the request is signed and at most 5 minutes old.
// Uses Node's standard library alone. Pass the body as it came (a Buffer), before any JSON is read.
"use strict";
const crypto = require("node:crypto");

const TOLERANCE_SECONDS = 300;

function verify(secret, headers, body) {
  const id = headers["webhook-id"] || "", timestamp = headers["webhook-timestamp"] || "";
  if (!/^\d+$/.test(timestamp) || Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE_SECONDS) {
    throw new Error("the timestamp is missing or more than 5 minutes away");
  }
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const expected = crypto.createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest();
  for (const signature of (headers["webhook-signature"] || "").split(" ")) {
    const [version, text] = signature.split(",");
    const decoded = Buffer.from(text || "", "base64");
    if (version === "v1" && decoded.length === expected.length && crypto.timingSafeEqual(decoded, expected)) return;
  }
  throw new Error("no signature fits");
}

module.exports = { verify };

if (require.main === module) {
  const headers = {
    "webhook-id": process.env.WEBHOOK_ID,
    "webhook-timestamp": process.env.WEBHOOK_TIMESTAMP,
    "webhook-signature": process.env.WEBHOOK_SIGNATURE,
  };
  try {
    verify(process.env.SECRET, headers, require("node:fs").readFileSync(0));
  } catch (error) {
    console.error(`refused: ${error.message}`);
    process.exit(1);
  }
  console.log("verified");
}
