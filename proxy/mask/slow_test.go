package mask_test
import ("testing";"strings";"time";"fmt";"github.com/jobgate/jobgate/proxy/mask")
func TestSlow(t *testing.T){
 for _, c := range [][2]string{
  {strings.Repeat(`\`,40), `\`}, {strings.Repeat(`\`,39)+"x", `\`}, {strings.Repeat(`\`,3000)+"x", `\`},{strings.Repeat(`a`,3000)+"x", `a`},{strings.Repeat(`a`,60000)+"x", `a`},{strings.Repeat(`a`,3000)+"x", `%61`},{strings.Repeat(`a`,3000)+"x", `\u0061`},
  {strings.Repeat("%25",1000)+"x", `%25`}, {strings.Repeat("%",3000)+"x", `%25`},{strings.Repeat("A",3000)+"x", "A\n"},{strings.Repeat("\x00",3000)+"x", "A\n"},{strings.Repeat("\x00",3000)+"x", "A"},{strings.Repeat("\x00",3000)+"x", "0"},{`abcdef`, `\`},{`abcdef`, `%25`},
 }{
  set := compile(t, mask.Config{Secrets: []mask.Secret{{Name:"a", Value: []byte(c[0])}}})
  src := []byte(strings.Repeat(c[1], 20000/len(c[1])))
  t0 := time.Now()
  done := make(chan int, 1)
  go func(){ _, n := set.Mask(nil, src); done<-n }()
  select { case n := <-done: fmt.Printf("%.10q(%d) in %q: %d places, %.1f ns/byte\n", c[0], len(c[0]), c[1], n, float64(time.Since(t0))/float64(len(src)))
  case <-time.After(3*time.Second): fmt.Printf("%.10q(%d) in %q: SLOW\n", c[0], len(c[0]), c[1]) }
 }
}
