// The npm package `pusher`, unmodified. Runs the calls it is given in order; writes each answer as a JSON line.
import Pusher from 'pusher'

const { port, id, key, secret, masterKey, calls } = JSON.parse(process.argv[2])
const pusher = new Pusher({
  appId: id,
  key,
  secret,
  host: '127.0.0.1',
  port: String(port),
  useTLS: false,
  timeout: 10_000,
  encryptionMasterKeyBase64: masterKey,
})
for (const [method, ...parameters] of calls) {
  try {
    const answer = await pusher[method](...parameters)
    console.log(JSON.stringify({ status: answer?.status ?? null, body: answer?.json ? await answer.json() : answer }))
  } catch (error) {
    console.log(JSON.stringify({ status: error.status ?? null, error: String(error.message) }))
  }
}
